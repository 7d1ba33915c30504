"""The verb generate: its words, and what --help says of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from trainctl.words import Verbs

GENERATE = """\
Without a MODEL the one that trains now answers, where an engine runs: at the next step boundary, or
at once while it is paused or idle. Training goes on as if nothing had been asked; it waits at most
10 s, beside the reading of the prompt (60 s while nothing trains), and the answer then ends with
what there is. While it trains, a prompt has at most training.max_length tokens. The time counts
into monitoring_share, and sample ticks wait until it is made up for. Where no engine runs, the
checkpoint that training stands on is asked.
With a MODEL (a version, a tag, a checkpoint, a digest, or base) a worker process loads it and
answers: on the first host of config.toml that is free, or, where none is configured, here on the
CPU at the lowest priority. Several are asked one after another, and stand beside each other where
the terminal has room. One that is not there is refused before any is asked.
Prompts are put in the form in which rows train, without their profile.
JSON: {
  model, step, branch, digest                 who answered; digest: of the weights it has loaded
  host, device, backend                       backend engine: the model that trains
  answer, stop                                end, limit, time, cancelled, interrupted
  tokens, prompt_tokens, max_tokens, seconds, tokens_per_second
  temperature, top_p, seed                    the last two where it was drawn
  precision                                   of a worker: fp32, bf16
  base_precision                              of an adapter, its base beside it: nf4 where it trains
                                              so (model.method = "qlora"); a worker has it in full
}, and a list of such objects for several models, where one that failed has error (exit 1).
What is not known is {"unknown": why}. Exit 130 when interrupted.
"""


def add_generate_verb(
    verbs: Verbs, positive: Callable[[str], int], not_negative: Callable[[str], int]
) -> None:
    """generate: one's own prompt, to the model that trains or to others of the home."""
    generate = verbs.add(
        "generate", "commands.generate:generate", "ask the model that trains now, or versions"
    )
    generate.add_argument(
        "model", nargs="*", metavar="MODEL", help="default: the model that trains now"
    )
    prompt = generate.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="a user's turn")
    prompt.add_argument(
        "-f", "--file", metavar="FILE", help="a file that holds it; -: standard input"
    )
    where = generate.add_mutually_exclusive_group()
    where.add_argument("--host", metavar="NAME", help="on this host of config.toml")
    where.add_argument("--local", action="store_true", help="on this machine's CPU")
    generate.add_argument("--system", metavar="TEXT", help='default: data.system_prompt; "": none')
    generate.add_argument("--max-tokens", type=positive, default=256, metavar="N")
    generate.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0")
    generate.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="of the likeliest tokens; default: 1"
    )
    generate.add_argument(
        "--seed", type=not_negative, metavar="N", help="of what is drawn; default: a new one"
    )
    generate.epilog, generate.formatter_class = GENERATE, argparse.RawDescriptionHelpFormatter
