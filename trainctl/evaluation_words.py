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
  deployed{version, digest, weights_digest, base, time}   what `best` in its store leads to
  python, packages{}, backends[]
  job{id, model, answered, items}             what this home's engine has running there }]
Percent, bytes, degrees Celsius, watts, seconds since the epoch; what a host did not say is
{"unknown": why}. Reaching it takes no lock there and makes nothing.
"""

DEPLOY = """\
A host asks with deploy = "best" in its [hosts.NAME]. Its store then has the link `best` to the
folder of that model, and best.json, which names version, digests and, for an adapter, the base's
folder: both are exchanged in one step after every byte was read there, so that a server that is
started on STORE/best has a whole model at any moment. It stays there until the next one came; the
store's retention spares it. A running engine does this by itself once the tag moves, and again
when a host was down. JSON: [{host, version, digest, error}]. Exit 1 where a host has an error.
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
that is better, and the journal has the figures either way. A person moves it with trainctl tag; it
then goes to the hosts that ask for it (trainctl hosts deploy --help).
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
    best{moved, why, n, gained, lost, p, final}}
  deployed[{host, version, digest, error}] }   where the tag moved and no engine is there to do it
RATE: {hits, total, share, low, high}, 95 % interval (Wilson), of the answers that were judged.
"""

REPORT = """\
Of the line of the present model, by what is stored; no model is asked. The verdict is one of
  overfitting   the validation loss rises, the training loss falls
  learning      the validation loss still falls
  underfitting  it stands, close to the training loss, and held-out accuracy is low
  plateau       it stands
  unknown       under five comparable validations, or both losses rise
and names its figures. A change counts above three standard errors of the curve's own noise and 1 %.
What a file did to the validation loss is the difference of the validations around it: unknown
where another file trained between them. An example is hard that was wrong in three of its last
five answers, the last among them.
JSON: {
  made, branch, step
  verdict{verdict, text, best{step, val_loss}, gap{train, val, share}, trend, noise,
    accuracy{step, right, n, low, high, best_step, as_good_from}}
  comparable_from                             validations before this step were of other rows
  curves{train[[step, min, max, mean, last]], val[[step, loss]], sets{name: [[step, loss]]}}
  marks[{kind, step, name, text}]             items, versions, rollbacks, failures, restarts
  held[{name, step, sets[], RATE}]            sets together, models that were asked all of them
  scores[{set, digest, config, items, settings{}, models[{name, step, digest, RATE,
    tiers{tier: {RATE}}, evaluation}]}]
  best                                        the version that is tagged so
  judged{…}                                   trainctl evaluate's verdict on the newest model
  events[{kind, time, step, text}]            regressions, alarms, decisions on best
  hard[{set, item, wrong, of, never, prompt, expected, answer}]
  effects[{item, name, before{step, loss}, after{step, loss}, change, clear}]
  examples{first, last, ticks, examples, learned, lost, always, never} }
RATE: right, n, accuracy, low, high, a 95 % interval (Wilson). What is not known is
{"unknown": why}.
"""


def add_report_verb(verbs: Verbs) -> None:
    """report: what is stored, told as a whole."""
    report = verbs.add("report", "commands.report:report", "does it get better? with the figures")
    report.add_argument(
        "--learning", action="store_true", required=True, help="curves, scores, verdict, files"
    )
    report.add_argument("--html", metavar="FILE", help="as one page with charts, no network")
    report.epilog, report.formatter_class = REPORT, argparse.RawDescriptionHelpFormatter


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
    """hosts, hosts deploy, hosts trust, and doctor --host."""
    doctor.add_argument("--host", metavar="NAME", help="this host instead, from ssh to tokens/s")
    hosts = verbs.add("hosts", "commands.hosts:hosts", "the machines that evaluate, asked now")
    hosts.epilog, hosts.formatter_class = HOSTS, argparse.RawDescriptionHelpFormatter
    further = Verbs(hosts, "hosts_verb")
    deploy = further.add(
        "deploy", "commands.hosts:deploy", "bring the best version to the hosts that ask for it"
    )
    deploy.add_argument("name", nargs="?", metavar="NAME", help="this host; default: all that ask")
    deploy.epilog, deploy.formatter_class = DEPLOY, argparse.RawDescriptionHelpFormatter
    trust = further.add(
        "trust", "commands.hosts:trust", "look at a host's key, and believe it from now on"
    )
    trust.add_argument("name", metavar="NAME")
    trust.add_argument("--yes", metavar="FINGERPRINT", help="do not ask; names the key expected")
