"""All subcommands of `lrm`, by the headings of its help: a new one is entered here."""

from collections.abc import Mapping, Sequence

from pipelines.cli.command import CommandEntry

__all__ = ["COMMANDS", "GROUPS"]

GROUPS: Mapping[str, Sequence[CommandEntry]] = {
    "data": (
        CommandEntry("build", "Build a dataset, or refresh it: do what is missing."),
        CommandEntry("plan", "Show what build would do and what it would cost.", only_prints=True),
        CommandEntry(
            "status", "Show how many objects are kept, dropped, failed, pending.", only_prints=True
        ),
        CommandEntry(
            "history",
            "Show all builds of a dataset, with their changes and costs.",
            only_prints=True,
        ),
        CommandEntry(
            "list", "List objects by state, reason, failure kind or measurement.", only_prints=True
        ),
        CommandEntry("inspect", "Show everything known of objects.", only_prints=True),
        CommandEntry("report", "Write an HTML page with the funnel, pictures, time and bytes."),
        CommandEntry("verify", "Read every shard and compare it with its checksums."),
        CommandEntry("repair", "Repair the catalog, and say what is lost."),
        CommandEntry("retry", "Clear failures, so that the next build tries again."),
        CommandEntry("remove", "Take objects down, for all later snapshots and builds."),
        CommandEntry("compact", "Delete unused files, and rewrite shards that are mostly unused."),
        CommandEntry("snapshot", "Create an immutable list of the kept samples, to train on."),
        CommandEntry(
            "diff",
            "Compare two snapshots, or one with the samples that are kept now.",
            only_prints=True,
        ),
        CommandEntry("export", "Write a snapshot in the folder layout of another trainer."),
    ),
    "training": (
        CommandEntry("train", "Train a model on a snapshot; the same command again resumes."),
        CommandEntry("weights", "Write the model of a training run as a file of weights."),
    ),
    "inference": (
        CommandEntry("multiview", "Turn a picture of an object into six views (Zero123++)."),
        CommandEntry("reconstruct", "Turn six views of an object, or pictures, into meshes."),
        CommandEntry("evaluate", "Score a model or meshes: PSNR, LPIPS, Chamfer, F-score."),
    ),
    "machine": (
        CommandEntry(
            "doctor",
            "Check this machine, and print how to install what is missing.",
            only_prints=True,
        ),
        CommandEntry(
            "completion", "Print a script for completion in bash, zsh or tcsh.", only_prints=True
        ),
        CommandEntry("help", "Show the help of a command.", only_prints=True),
    ),
}
COMMANDS: Sequence[CommandEntry] = tuple(entry for group in GROUPS.values() for entry in group)
