"""The table of all benchmarks by name. Add a new benchmark here."""

__all__ = ["BENCHMARKS"]

_BY_PACKAGE = {
    "speed": (
        "captions",
        "catalog",
        "commits",
        "encoding",
        "estimates",
        "executor",
        "loader",
        "mesh_memory",
        "order",
        "rasterize",
        "render",
        "scale",
        "train_step",
    ),
    "proofs": (
        "compare_checkouts",
        "fit_object",
        "fit_zero123plus",
        "learn_eight",
        "light",
        "surfaces",
    ),
    "pixel2mesh": ("fit_pixel2mesh", "genus", "pixel2mesh_step"),
    "chaos": ("chaos_build", "chaos_train", "power_loss"),
    "fuzz": ("damage", "fuzz"),
}

BENCHMARKS = {
    name: f"benchmarks.{package}.{name}" for package, names in _BY_PACKAGE.items() for name in names
} | {"nightly": "benchmarks.nightly"}
"""The module of each benchmark by name; its `main()` parses the command line."""
