"""The verbs of evaluation: added to the parser's, and kept here, where there is room for them."""

from __future__ import annotations

import argparse

from trainctl.words import Verbs

HOSTS = """\
JSON: [{
  name, ssh, state                            idle, busy, refused (up, and to be mended), down
  why                                         who has it, what is wrong; "" when idle
  gpus[{name, utilization, memory_used, memory_total, temperature, power}], ram{used, total}
  disk{free, total, store}                    bytes where its store of weights is
  models[{digest, version, bytes, used}]      what it holds; version: its name in this home
  python, packages{}, backends[] }]
Percent, bytes, degrees Celsius, watts, seconds since the epoch; what a host did not say is
{"unknown": why}. Reaching it takes no lock there and makes nothing.
"""


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
