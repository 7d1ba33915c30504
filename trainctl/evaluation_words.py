"""The verbs of evaluation: added to the parser's, and kept here, where there is room for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from trainctl.words import Verbs

HOSTS = """\
JSON: [{
  name, ssh, state                            idle, busy, refused (up, and to be mended), down
  why                                         who has it, what is wrong; "" when idle
  gpus[{name, utilization, memory_used, memory_total, temperature, power}], ram{used, total}
  disk{free, total, store}                    bytes where its store of weights is
  models[{digest, version, bytes, used}]      what it holds; version: its name in this home
  python, packages{}, backends[]
  job{id, model, answered, items}             what this home's engine has running there }]
Percent, bytes, degrees Celsius, watts, seconds since the epoch; what a host did not say is
{"unknown": why}. Reaching it takes no lock there and makes nothing.
"""

EVALUATE = """\
VERSION is a version, a tag, a checkpoint, a digest, or base (what the home started from). Its
answers are greedy, made by a worker process: on the first host of config.toml that is free, or,
where none is configured, here, on the CPU, at the lowest priority. Rows are asked as rows train:
the template, and profile, system_prompt and thinking of [data].
Answers are kept as they come. What has one is not asked again, so a second run prints at once and
an interrupted one (ctrl+c) goes on. An error is no wrong answer: it is counted apart, and asked
again the next time, unless the row was refused (the model's context does not hold it, say).
Then it is judged, on the sets of [evaluation] sets: against the best version (base where none is
tagged) by a paired test on the same items. Worse beyond chance is a regression; not one right
answer at a training loss under 0.05 means a broken evaluation; the tag `best` moves to a version
that is better, and the journal has the figures either way. A person moves it with trainctl tag.
With --queue it is a job for the engine, which needs not run yet (trainctl jobs), and the JSON is
that of the job.
Exit 1 where an item has an error, 130 when interrupted.
JSON: {
  model{name, digest, step, branch}
  settings{temperature, max_tokens, stop[], profile, profile_digest, thinking, system_prompt,
    template}                                 what compare wants to be the same
  sets[{
    set, digest, config, items, answered, right, accuracy RATE, tiers{tier: RATE}
    errors{kind: n}, missing                  missing: never asked (--limit, or interrupted)
    speed[{backend, hosts[], batch, answers, tokens, tokens_per_second}] }]
  asked                                       items that were sent this time
  host                                        who was asked, "" for nobody
  interrupted, notes[]
  verdict{model, digest, step, time, right, n, train_loss, canary, against
    regressions[{set, skill, tier, level, n, gained, lost, p, text}]
    best{moved, why, n, gained, lost, p, final}} }
RATE: {hits, total, share, low, high}, 95 % interval (Wilson), of the answers that were judged.
"""


JOBS = """\
A job asks one model the evaluation sets, beside training: on the first idle host of config.toml,
or, where none is configured, on this machine at the lowest priority. They are made by the engine
([evaluation] says when), and by `trainctl evaluate --queue`. The newest wins: a job that waits for
an older checkpoint is superseded, unless its version is pinned or somebody asked for it.
JSON: {
  jobs[{
    id, model, digest, step, branch, sets[]
    reason                                    item, checkpoint, version, baseline, demand
    priority                                  high, normal, low
    state                                     waiting, shipping, running, done, failed, cancelled,
                                              superseded
    wanted                                    the host that was asked for, "" for any
    host, items, answered, errors             errors: items without an answer that counts
    created, started, ended, next_try, deadline, tries
    error }]                                  why it waits again, or how it ended; "" for nothing
  hosts[{name, state, error, seen, idle_since, job, gpus[], ram}] }
State of a host: idle, busy, unreachable, unknown; hosts are unknown where no engine runs.
What is not known is {"unknown": why}; seconds since the epoch. Jobs that have not ended come
first, in the order of their turns, then the newest that have.
"""


def add_jobs_verbs(verbs: Verbs, positive: Callable[[str], int]) -> None:
    """jobs and jobs cancel."""
    listing = verbs.add("jobs", "commands.jobs:jobs", "evaluation jobs, and where they run")
    listing.add_argument(
        "--ended", type=positive, default=20, metavar="N", help="how many that ended (20)"
    )
    listing.epilog, listing.formatter_class = JOBS, argparse.RawDescriptionHelpFormatter
    cancel = Verbs(listing, "jobs_verb").add(
        "cancel", "commands.jobs:cancel", "end a job; what was answered is kept"
    )
    cancel.add_argument("id", type=positive, metavar="ID")


def add_evaluate_verb(verbs: Verbs, positive: Callable[[str], int]) -> None:
    """evaluate: the held-out sets, on demand."""
    evaluate = verbs.add(
        "evaluate", "commands.evaluate:evaluate", "ask a version the evaluation sets, and judge it"
    )
    evaluate.add_argument(
        "version", nargs="?", metavar="VERSION", help="default: the newest verified version"
    )
    evaluate.add_argument(
        *("--set",),
        action="append",
        default=[],
        metavar="S",
        help="this set; can be given again; default: [evaluation] sets",
    )
    where = evaluate.add_mutually_exclusive_group()
    where.add_argument("--host", metavar="NAME", help="on this host of config.toml")
    where.add_argument("--local", action="store_true", help="on this machine's CPU")
    evaluate.add_argument(
        "--limit", type=positive, metavar="N", help="only the first N items of each set"
    )
    evaluate.add_argument(
        "--max-tokens", type=positive, metavar="N", help="default: [samples] max_tokens"
    )
    evaluate.add_argument(
        "--queue", action="store_true", help="as a job of the engine: do not wait for the answers"
    )
    evaluate.add_argument(
        "--priority", choices=("high", "normal", "low"), help="with --queue; default: high"
    )
    evaluate.epilog, evaluate.formatter_class = EVALUATE, argparse.RawDescriptionHelpFormatter


def add_host_verbs(verbs: Verbs, doctor: argparse.ArgumentParser) -> None:
    """hosts, hosts trust, and doctor --host."""
    doctor.add_argument("--host", metavar="NAME", help="this host instead, from ssh to tokens/s")
    hosts = verbs.add("hosts", "commands.hosts:hosts", "the machines that evaluate, asked now")
    hosts.epilog, hosts.formatter_class = HOSTS, argparse.RawDescriptionHelpFormatter
    trust = Verbs(hosts, "hosts_verb").add(
        "trust", "commands.hosts:trust", "look at a host's key, and believe it from now on"
    )
    trust.add_argument("name", metavar="NAME")
    trust.add_argument("--yes", metavar="FINGERPRINT", help="do not ask; names the key expected")
