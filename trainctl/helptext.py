"""What `--help` says beyond the options, for the verbs whose JSON scripts read.

Text alone: the parser is built at every start.
"""

LINEAGE = """\
JSON: {
  generators[{generator, version, COUNTS}]    files with a sidecar, versions in their order
  no_lineage[{skill, level | {unknown}, COUNTS}]   the others, by the badge of the file's name
  broken[{item, name, why}]                   sidecars that could not be read
  most_rejected{generator, rejected RATE, others RATE, p, clear} | {unknown}
  bumps[{generator, from, to, before RATE, after RATE, files[2], p, verdict}]
      verdict: worse, better, no clear difference
  validators[{name, versions[], level, files, files_failed, rows, errors, warnings,
      error_rate RATE}]                       the most aggressive first
  most_aggressive{name, versions[], error_rate RATE, next, clear} | {unknown} }
COUNTS: files, rows, rejected (rows that fit no spec), rejected_rate RATE, over_length RATE |
  {unknown}, held_out, steps (of the present model), failures (failed + rejected_files), items[ids]
RATE: {hits, total, share, low, high}: a share with its 95 % interval (Wilson). Two shares are
  compared by Fisher's exact test over rows; clear means p < 0.01.
"""

COMPARE = """\
A and B are versions, tags, checkpoints, digests (8 characters or more), or base. Their stored
answers to the same items are compared: an error, a timeout or an item not asked is no wrong
answer and is counted apart. Refused is what was not the same question: another state of the set,
other generation settings, another version of a scorer.
JSON: {
  a, b{name, digest, val_loss}
  sets[{
    set, digest, config, settings, items, scorers[], evaluations{a, b}
    accuracy GROUP, verdict{result, text, needed, detectable}
    skills[{skill, GROUP}], tiers[{tier, GROUP}], levels[{skill, level, GROUP}]
    graded[{scorer, version, part, n, a, b, difference, low, high, p}]
    parts[{scorer, version, part, n, a, b}]   means
    errors{a{kind: n}, b{kind: n}}
    speed{a, b}[{backend, hosts[], batch, answers, tokens, tokens_per_second}]
    gained[ids], lost[ids], changed[{item, gained, prompt, expected, a, b}] }]
  refused[{set, why, mend}] }
GROUP: {n, a RATE, b RATE, difference, gained, lost, p, p_adjusted}; RATE: {hits, total, share, low,
  high}, 95 % interval (Wilson); p: McNemar, exact; p_adjusted: for the number of groups of a kind
  (Benjamini-Hochberg). graded: interval by bootstrap, p by permutation. result: better, worse, no
  difference shown, unknown; needed: items to see 5 points four times in five.
"""

SETS = """\
Files evaluation/*.jsonl of the home: conversations whose last turn is the expected answer. They
never train. A row's metadata may say skill, level, tier (easy, medium, hard; difficulty and tags
are read, too) and scorer; without one its skill's judges it, else the number after #### where the
answer has one, else exact match. The <think> block that an answer opens with is not judged.
Exit 1 where a row cannot be asked or judged.
JSON: [{
  name, digest
  rows, examples, prompts                     lines; of those that can be asked; different ones
  skills[], levels{level: rows}, tiers{tier: rows}
  scorers[{name, version, about, rows}]       about: how it normalises
  problems[{line, what, error}] }]
"""

INIT = """\
--set writes a setting into the new config.toml; keys are those of `trainctl config show`.
--from reads the config.json of an older system, and a hosts.json beside it, and writes their
settings into the new config.toml.
Where it says two things, nothing is written and each value is listed with its place: decide with
--set.
JSON with --from: {
  mapped[{from[], to, value}]                 old keys, the key of config.toml, its value
  conflicts[{key, values[{value, place}], why, choose}]
  ignored[{key, because}]                     what has no counterpart, and unknown keys
  problems[{key, value, what}]                values that config.toml does not take
  written: the config.toml, or null }
"""

IMPORT = """\
Shows the plan first and asks. Everything is copied and read back; the folder is never changed.
What is here already is known by its digest: a second import takes over what is missing. Weights
become versions of the kind "imported", which trainctl restore trains on from.
JSON: {
  source, bytes, free_bytes                   bytes to copy, and free on the home's disk
  items[{path, name, priority, state, rows, size_bytes, digest, note, here}]
  sets[{name, sources[], rows, size_bytes, digest, here}]
  versions[{name, step, method, description, size_bytes, weights_digest, note, here}]
  settings{mapped[], conflicts[], ignored[], problems[]} | null    as trainctl init --help
  left_out[{path, because, error}]            error: it should have been taken over; exit 1
  done[{kind, name, is}] | null               null with --dry-run }
"here" names what a thing is in this home already, "" for a new one.
"""

VALIDATE = """\
check a file, train nothing, change nothing.

quick     the rows: JSON, spec, roles; needs no home and no model
standard  and tokens of every row with the home's model, template, profile and max_length:
          lengths, rows too long, rows of evaluation sets, what share trains, packing, mask checks
deep      and the contents: duplicates, leaked answers, repetition, encoding faults

Exit 1 where a row is wrong, rows are too long while data.over_length refuses the file, or a
check of the masks fails. With --tokens in a pipe or without colour, what trains stands in
brackets; control characters are shown as signs.
"""

SAMPLES = """\
Fixed examples of the held-out sets ([samples] count) and rows of the file that trains (item_count)
are asked before a file trains, at the steps of it that [samples] schedule names, at its end, and at
every training.sample_steps of the branch. A tick for which training.monitoring_budget has no room
is put off, and says so. With a host ([samples] where) training asks nothing: the answers of the
evaluation jobs to the sets' fixed examples stand at the steps of the checkpoints that were asked.
JSON: {
  step, steps[]                                 of the tick that is shown, and of all
  exact, total, item_exact, item_total          right answers: of the sets, of the item's rows
  changes{improving, regressing, stable, new}   each example against its own tick before
  due{step, training_seconds}                   a tick that is put off, and until when
  samples[{
    branch, step, example, set, item, position, prompt, expected, skill, level, answer, exact
    similarity, expected_loss                   0 to 1; nats a token of the expected answer
    learned, lost                               first step at which it was exact; since when it is
                                                wrong after that
    change, since                               against the tick at step since
    host                                        whose worker answered
    tokens, seconds, time }] }
An answer improves where it becomes exact or, not exact before and now, its similarity grows by
0.05, and regresses the other way round. What is not known is {"unknown": why}.
"""

TAG = """\
A name is on one version at most: take it off the other one first. `best` moves by itself, from
a version to a later or earlier one that a paired test shows to be better (trainctl evaluate); by
hand it is only taken off (--off), and what is evaluated from then on is compared with the base.
It goes to the hosts that ask for it (trainctl hosts deploy --help), and keeps its version from
being pruned. `base` is the base model, and no tag.
"""

JOIN = """\
For each further host of [launch] nodes, in the same home on a folder that all hosts see at the same
path. Comes to every launch of the engine, with training.processes of this host, until ctrl+c or
SIGTERM; needs no rank and no order. Ends at once with its processes: the engine then goes on from
the last checkpoint as soon as as many hosts are there again (launch.join_minutes).
"""

MERGE = """\
The version stays as it is, and training goes on from it; the full model is a version of its own
(kind "merged"), of weights alone. It can be evaluated, asked, compared, verified, backed up and
deleted like any other; nothing but a person deletes it. Its folder, which is told, is what
AutoModelForCausalLM, vLLM and llama.cpp's converter load. `restore` refuses it: a home that trains
an adapter goes on from adapters; make a home with that folder as model.base to train it on.
Tensor by tensor on the CPU, in the dtype that the base model's files have; the disk is checked
first (snapshots.stop_free). Exit 4 where the base model or the adapter is not the recorded one.
An adapter that trained beside a 4-bit base (model.method = "qlora") is merged into the base's
files, which are in full precision, as it is evaluated beside them: its answers differ a little from
those of training's own samples.
JSON: the version, as `trainctl versions VERSION` prints it, and merged{version, weights_digest,
base_digest, method}.
"""
