"""Libraries whose progress bars and hints do not belong to the output of a command."""

__all__ = ["quiet_diffusers"]


def quiet_diffusers() -> None:
    """Silence the progress bars of diffusers and transformers, and their hints at packages."""
    import diffusers
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.logging.disable_progress_bar()
