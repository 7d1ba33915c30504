"""The words of the command line: every verb, its arguments, and the function that does it.

A verb is listed here only when it works. Functions are named, not imported: see `run`.
Errors in the words are one line, with exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from queue_store.errors import UsageError
from queue_store.kinds import GROUPS
from trainctl import helptext
from trainctl.evaluation_words import (
    add_evaluate_verb,
    add_host_verbs,
    add_jobs_verbs,
    add_report_verb,
)
from trainctl.generate_words import add_generate_verb
from trainctl.memory_words import add_vram_verb
from trainctl.words import Parser, Verbs, shared

PRIORITIES = ("high", "normal", "low")
STATES = (
    *("waiting", "queued", "preparing", "training", "paused", "trained"),
    *("done", "failed", "skipped", "rejected"),
)
EPILOG = """\
Without a verb: the console, attached to the home's engine or with one of its own.
`trainctl VERB --help` tells more. --home and --json may stand before or after the verb.
Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no engine is running, 4 a verification failed.
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The words as a namespace with `run` ("module:function"), `home` and `json`.

    Raises UsageError; `--help` and `--version` print and raise SystemExit.
    """
    parser = _build()
    arguments, rest = parser.parse_known_args(list(words))
    if rest:
        raise UsageError(f"unknown words: {' '.join(rest)}", mend="trainctl --help")
    if arguments.verb is not None and (arguments.daemon or arguments.detach):
        raise UsageError("--daemon takes no verb", mend="trainctl --daemon [--detach]")
    for flag in ("readonly", "ascii"):
        if getattr(arguments, flag) and (arguments.daemon or arguments.verb not in (None, "demo")):
            raise UsageError(f"--{flag} is for the console", mend=f"trainctl --{flag}")
    if arguments.detach and not arguments.daemon:
        raise UsageError("--detach goes with --daemon", mend="trainctl --daemon --detach")
    if arguments.verb is not None and arguments.run is None:
        raise UsageError(
            f"{arguments.verb} needs a verb of its own", mend=f"trainctl {arguments.verb} --help"
        )
    if arguments.verb is None:
        arguments.run = "daemon:command" if arguments.daemon else "console:command"
        if arguments.engine:
            if None in (arguments.lock_fd, arguments.beat_fd, arguments.supervisor_pid):
                raise UsageError("--engine is what a supervisor says", mend="trainctl --daemon")
            arguments.run = "training:command"
    return arguments


def _build() -> argparse.ArgumentParser:
    from trainctl import __version__

    parser = Parser(
        prog="trainctl",
        parents=[shared(None)],
        usage="trainctl [--home DIR] [--json] [VERB …] | --daemon [--detach] | [--readonly]",
        description="Fine-tune a language model on the JSONL files of an inbox; lose nothing.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"trainctl {__version__}")
    parser.add_argument("--daemon", action="store_true", help="train without a console")
    parser.add_argument("--detach", action="store_true", help="with --daemon: in the background")
    parser.add_argument(
        "--readonly", action="store_true", help="a console that looks and can change nothing"
    )
    parser.add_argument("--ascii", action="store_true", help="a console drawn in ASCII only")
    # The console hands its lock to the daemon that takes over: an open file descriptor.
    parser.add_argument("--lock-fd", type=int, default=None, help=argparse.SUPPRESS)
    # What the supervisor says to the process that trains.
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--beat-fd", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--supervisor-pid", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--hold", default="", help=argparse.SUPPRESS)
    verbs = Verbs(parser, "verb")
    _home_verbs(verbs)
    _control_verbs(verbs)
    _queue_verbs(verbs)
    _model_verbs(verbs)
    _removal_verbs(verbs)
    _backup_verb(verbs)
    _reading_verbs(verbs)
    return parser


def _home_verbs(verbs: Verbs) -> None:
    home = "commands.home"
    demo = verbs.add("demo", f"{home}:demo", "a home with a small model and data, then the console")
    demo.add_argument("folder", nargs="?", default="trainctl-demo", metavar="DIR")
    init = verbs.add("init", f"{home}:init", "make a home: config.toml, inbox and store")
    init.add_argument("folder", nargs="?", default=".", metavar="DIR")
    kind = init.add_mutually_exclusive_group()
    kind.add_argument("--demo", action="store_true", help="with the demo's model, data and recipe")
    kind.add_argument(
        "--from", dest="source", metavar="config.json", help="with an older system's settings"
    )
    _settings(init)
    init.add_argument("--dry-run", action="store_true", help="only say what would be taken over")
    _describe(init, helptext.INIT)
    about = "an older system's queue, held-out sets and weights, copied into this home"
    old = verbs.add("import", "commands.importing:take_over", about)
    old.add_argument("path", metavar="PATH", help="its base folder, which is only read")
    old.add_argument("--dry-run", action="store_true", help="only say what would be done")
    old.add_argument("--config", action="store_true", help="and its settings into config.toml")
    _settings(old)
    old.add_argument("--yes", action="store_true", help="do not ask")
    _describe(old, helptext.IMPORT)
    config = Verbs(verbs.add("config", None, "the settings"), "config_verb")
    show = config.add("show", f"{home}:config_show", "every key and its value")
    show.add_argument("--origin", action="store_true", help="and the file that it comes from")
    unlock = config.add("unlock", f"{home}:config_unlock", "accept a locked key's new value")
    unlock.add_argument("key", metavar="KEY")
    unlock.add_argument("--yes", action="store_true", help="do not ask")
    doctor = verbs.add("doctor", "commands.doctor:doctor", "what is wrong here, and what to do")
    doctor.add_argument("--quick", action="store_true", help="read no weights, no whole database")
    add_host_verbs(verbs, doctor)
    join = verbs.add("join", "commands.join:join", "this host's part of a training on several")
    _describe(join, helptext.JOIN)
    join.add_argument(
        "--address", default="", metavar="NAME", help="by which the other hosts reach this one"
    )
    rebuild = verbs.add("rebuild", "commands.rebuild:rebuild", "a lost database, made anew")
    rebuild.add_argument("--from", dest="source", choices=("backup", "manifests"))
    rebuild.add_argument("--dry-run", action="store_true", help="only say what would be done")
    rebuild.add_argument("--yes", action="store_true", help="do not ask")
    service = Verbs(verbs.add("service", None, "a systemd user unit of the daemon"), "service_verb")
    unit = service.add("install", "commands.service:install", "write the unit")
    unit.add_argument("--dry-run", action="store_true", help="print it, write nothing")
    unit.add_argument("--yes", action="store_true", help="replace a unit of other origin")
    service.add("uninstall", "commands.service:uninstall", "remove the unit")
    data = Verbs(verbs.add("data", None, "make training files"), "data_verb")
    make = data.add("make", "commands.data:make", "a file of a skill's rows, from a seed")
    make.add_argument("skill", metavar="SKILL", help="binary or syllo")
    which = make.add_mutually_exclusive_group(required=True)
    which.add_argument("--level", type=_positive, metavar="N")
    which.add_argument("--tier", choices=("easy", "medium", "hard"), help="all levels of a tier")
    make.add_argument("--count", type=_positive, required=True, metavar="N")
    make.add_argument("--seed", type=_not_negative, default=0, metavar="N")
    make.add_argument("--held-out", action="store_true", help="rows for evaluation, never trained")
    make.add_argument("-o", "--output", required=True, metavar="FILE")
    sets = verbs.add(
        "sets", "commands.data:sets", "the home's evaluation sets, and who judges them"
    )
    _describe(sets, helptext.SETS)


def _control_verbs(verbs: Verbs) -> None:
    control = "commands.control"
    status = verbs.add("status", "commands.status:status", "what the engine is doing")
    status.add_argument("--watch", action="store_true", help="again every second, until ctrl+c")
    pause = verbs.add("pause", f"{control}:pause", "stop stepping; returns when paused")
    pause.add_argument("--park", action="store_true", help="and save, and free the GPU")
    verbs.add("resume", f"{control}:resume", "step again; returns when stepping")
    skip = verbs.add("skip", f"{control}:skip", "end the item that trains now, or one that waits")
    skip.add_argument("id", type=_positive, metavar="ID", nargs="?")
    skip.add_argument("--undo", action="store_true", help="and take back what it taught")
    skip.add_argument("--reason", default="", metavar="TEXT")
    verbs.add("stop", f"{control}:stop", "finish the step, save, end the engine")
    verbs.add("drain", f"{control}:drain", "finish the item, save, end the engine")


def _queue_verbs(verbs: Verbs) -> None:
    queue = "commands.queue"
    add = verbs.add("add", f"{queue}:add", "copy files into the queue")
    add.add_argument("files", nargs="+", metavar="FILE")
    add.add_argument("--priority", choices=PRIORITIES, default="normal")
    listing = verbs.add("queue", f"{queue}:queue", "the items, in the order in which they train")
    listing.add_argument("--state", choices=STATES)
    show = verbs.add(
        "show", f"{queue}:show", "one item: progress, attempts, errors, lengths; or one row of it"
    )
    _item(show)
    show.add_argument(
        *("--row",),
        type=_positive,
        metavar="N",
        help="the row on line N of its file as it trains: what trains of it is marked",
    )
    priority = verbs.add("priority", f"{queue}:priority", "change an item's priority")
    _item(priority)
    priority.add_argument("priority", choices=PRIORITIES)
    move = verbs.add("move", f"{queue}:move", "reorder an item within its priority")
    _item(move)
    place = move.add_mutually_exclusive_group(required=True)
    place.add_argument("--first", action="store_true")
    place.add_argument("--before", type=_positive, metavar="ID")
    place.add_argument("--by", type=int, metavar="N", help="N places later; -N: earlier")
    _item(verbs.add("retry", f"{queue}:retry", "queue a failed or skipped item again"))
    remove = verbs.add("remove", f"{queue}:remove", "take an item that has not trained away")
    _item(remove)
    remove.add_argument("--yes", action="store_true", help="do not ask")
    _item(verbs.add("unremove", f"{queue}:unremove", "take a removal back: file, place, priority"))
    lineage = verbs.add(
        "lineage", "commands.lineage:lineage", "what the generators of the files are worth"
    )
    lineage.add_argument("--generator", metavar="G", help="only this one's files")
    _describe(lineage, helptext.LINEAGE)
    _validate_verb(verbs)


def _validate_verb(verbs: Verbs) -> None:
    validate = verbs.add("validate", "commands.validate:validate", "check a file, train nothing")
    validate.description = helptext.VALIDATE
    validate.formatter_class = argparse.RawDescriptionHelpFormatter
    validate.add_argument("file", metavar="FILE")
    validate.add_argument(
        "--level",
        choices=("quick", "standard", "deep"),
        help="default: standard where a home with a model is found, else quick",
    )
    validate.add_argument(
        "--model", metavar="FOLDER", help="make tokens with this model instead of the home's"
    )
    validate.add_argument(
        "--tokens",
        action="store_true",
        help="every row with what trains of it marked; with --json its ids and which of them train",
    )


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="decide a setting, for example training.max_length=2048; can be given again",
    )


def _describe(parser: argparse.ArgumentParser, epilog: str) -> None:
    """Words below the options, as they are written."""
    parser.epilog, parser.formatter_class = epilog, argparse.RawDescriptionHelpFormatter


def _model_verbs(verbs: Verbs) -> None:
    versions = "commands.versions"
    verbs.add("models", "commands.models:models", "every model on this host, with its digest")
    verbs.add("checkpoints", f"{versions}:checkpoints", "the checkpoints on disk")
    listing = verbs.add("versions", f"{versions}:versions", "the numbered, verified snapshots")
    listing.add_argument(
        "version", nargs="?", metavar="VERSION", help="all there is to know of one"
    )
    listing.add_argument("--tree", action="store_true", help="which came from which")
    snapshot = verbs.add("snapshot", f"{versions}:snapshot", "keep the present state as a version")
    snapshot.add_argument("-m", "--message", default="", metavar="TEXT")
    snapshot.add_argument("--weights-only", action="store_true", help="without optimizer state")
    snapshot.add_argument("--pin", action="store_true", help="keep it for ever")
    verify = verbs.add(
        "verify", "commands.verify:verify", "read a version back and compare digests"
    )
    verify.add_argument("version", nargs="?", metavar="VERSION", help="default: all")
    verify.add_argument("--deep", action="store_true", help="and see that it loads and computes")
    merge = verbs.add(
        "merge", "commands.merge:merge", "a full model of an adapter's version and its base"
    )
    merge.add_argument("version", metavar="VERSION", help="a version of model.method lora or qlora")
    merge.add_argument("-m", "--message", default="", metavar="TEXT")
    _describe(merge, helptext.MERGE)
    restore = verbs.add("restore", "commands.back:restore", "train on from a version")
    restore.add_argument("version", metavar="VERSION")
    restore.add_argument("--yes", metavar="VERSION", help="do not ask; names the version again")
    restore.add_argument("--from", dest="source", metavar="NAME", help="a backup target's copy")
    rollback = verbs.add("rollback", "commands.back:rollback", "back to an earlier version")
    rollback.add_argument(
        "version", nargs="?", metavar="VERSION", help="default: the newest earlier"
    )
    rollback.add_argument("--yes", metavar="VERSION", help="do not ask; names the version again")
    pin = verbs.add("pin", "commands.labels:pin", "keep a version for ever")
    pin.add_argument("version", metavar="VERSION")
    pin.add_argument("--off", action="store_true", help="let the retention rules decide again")
    tag = verbs.add("tag", "commands.labels:tag", "give a version a name of your own")
    tag.add_argument("version", metavar="VERSION")
    tag.add_argument("name", metavar="NAME")
    tag.add_argument("--off", action="store_true", help="take the name away")
    _describe(tag, helptext.TAG)
    describe = verbs.add("describe", "commands.labels:describe", "say anew what a version is")
    describe.add_argument("version", metavar="VERSION")
    describe.add_argument("text", metavar="TEXT", help='"" for nothing')
    diff = verbs.add("diff", "commands.diff:diff", "what distinguishes two versions")
    diff.add_argument("first", metavar="A")
    diff.add_argument("second", metavar="B")
    diff.add_argument("--no-tensors", action="store_true", help="do not compare the weights")
    compare = verbs.add("compare", "commands.compare:compare", "whether B answers better than A")
    compare.add_argument("first", metavar="A")
    compare.add_argument("second", metavar="B")
    compare.add_argument("--set", metavar="S", help="on this set alone")
    compare.add_argument(
        "--rejudge", action="store_true", help="first let the present scorers judge stored answers"
    )
    _describe(compare, helptext.COMPARE)
    add_evaluate_verb(verbs, _positive)
    add_vram_verb(verbs, _positive)
    add_jobs_verbs(verbs, _positive)
    add_report_verb(verbs)


def _removal_verbs(verbs: Verbs) -> None:
    removal = "commands.removal"
    delete = verbs.add("delete", f"{removal}:delete", "a version to the trash; its name is typed")
    delete.add_argument("version", metavar="VERSION")
    delete.add_argument("--yes", metavar="VERSION", help="do not ask; names the version again")
    prune = verbs.add("prune", f"{removal}:prune", "to the trash with what no rule keeps")
    prune.add_argument("--dry-run", action="store_true", help="say what goes and what stays, why")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    about = verbs.add("trash", f"{removal}:trash_list", "what was removed and can come back")
    trash = Verbs(about, "trash_verb")
    trash.add("list", f"{removal}:trash_list", "what is in it")
    restore = trash.add("restore", f"{removal}:trash_restore", "bring something back")
    restore.add_argument("name", metavar="NAME")
    empty = trash.add("empty", f"{removal}:trash_empty", "unlink it for good")
    empty.add_argument("name", nargs="?", metavar="NAME", help="only this")
    empty.add_argument("--yes", action="store_true", help="do not ask")


def _backup_verb(verbs: Verbs) -> None:
    backup = verbs.add(
        "backup", "commands.backup:backup", "second copies of versions on another disk or host"
    )
    backup.add_argument("target", nargs="?", metavar="NAME", help="one target; default: all")
    does = backup.add_mutually_exclusive_group()
    does.add_argument("--list", action="store_true", help="the copies, and why each one stays")
    does.add_argument("--verify", action="store_true", help="read every copy back again")
    does.add_argument(
        *("--fetch",),
        nargs="?",
        const="",
        metavar="VERSION",
        help="bring a version back; without one, all that are there",
    )
    backup.add_argument("--version", dest="only", metavar="VERSION", help="this version only")


def _reading_verbs(verbs: Verbs) -> None:
    history = verbs.add("history", "commands.history:history", "every step that was trained")
    history.add_argument("--item", type=_positive, metavar="ID")
    history.add_argument("--series", metavar="S", help="one metric instead: loss, val_loss, …")
    add_generate_verb(verbs, _positive, _not_negative)
    samples = verbs.add("samples", "commands.samples:samples", "what the model answers, by step")
    samples.add_argument(
        "--step", type=_not_negative, metavar="N", help="the newest at or before N; default: of all"
    )
    samples.add_argument("--example", metavar="ID", help="one example through the steps")
    _describe(samples, helptext.SAMPLES)
    log = verbs.add("log", "commands.history:log", "the journal of everything that happened")
    log.add_argument("-f", "--follow", action="store_true", help="go on with what happens")
    log.add_argument("-n", type=_positive, default=50, metavar="N", help="the newest N (50)")
    log.add_argument("--only", choices=tuple(GROUPS), default="", help="one group of events")
    log.add_argument("--contains", default="", metavar="T", help="with this text, in any case")


def _item(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=_positive, metavar="ID")


def _positive(word: str) -> int:
    return _whole(word, least=1)


def _not_negative(word: str) -> int:
    return _whole(word, least=0)


def _whole(word: str, least: int) -> int:
    digits = word.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    if digits == word and len(word) > 15:  # before it is read: Python reads no thousands of digits
        raise argparse.ArgumentTypeError(f"{word} is too large: at most 15 digits")
    if digits != word or int(word) < least:
        raise argparse.ArgumentTypeError(f"{word} is too small: at least {least}")
    return int(word)
