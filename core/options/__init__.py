"""Command-line options: the parser, its help, and options made from configurations."""

from core.options.config_options import (
    add_config_options,
    given_setting,
    load_config,
    load_settings,
    settings_from_options,
)
from core.options.field_values import Choices, leaves
from core.options.parser import Parser
from core.options.shared_options import (
    add_json_option,
    add_monitoring_options,
    add_old_option,
    add_root_options,
    add_wait_option,
)

__all__ = [
    "Choices",
    "Parser",
    "add_config_options",
    "add_json_option",
    "add_monitoring_options",
    "add_old_option",
    "add_root_options",
    "add_wait_option",
    "given_setting",
    "leaves",
    "load_config",
    "load_settings",
    "settings_from_options",
]
