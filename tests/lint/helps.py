# SPDX-License-Identifier: MIT
"""Each option that a program's --help names is in its manual page and in its completion, and these
name no other.  Usage: helps.py PROGRAM PAGE COMPLETION"""
import os
import re
import shutil
import subprocess
import sys

import lint

# Said once for all verbs, or not worth a completion.
EVERYWHERE = {"--help", "--version"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
BASH = shutil.which("bash")


def options(text):
    return set(OPTION.findall(text)) - EVERYWHERE


def plain(page):
    """A manual page without its formatting."""
    return re.sub(r"\\f[BIRP]", "", page).replace("\\-", "-")


def complete(completion, program, words):
    """What the completion offers after the words and a dash."""
    script = completion + """
compopt() { :; }
COMP_WORDS=("$@" -)
COMP_CWORD=$#
function=$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" "$1" - "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run([BASH, "-c", script, "bash", program, *words], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL)
    return options(done.stdout), done.stderr


def find(files):
    """files: program, page, completion, and a text of help for each verb ('': the program's)"""
    complaints = []
    program, page = files["program"], plain(files["page"])
    named = set()
    for verb, text in files["help"].items():
        # What stands before a verb belongs to the program.
        wanted = options(re.sub(r"(?<=Usage: ).*", "", text) if verb else text)
        named |= wanted
        if verb and not re.search(rf"(?<![\w-]){verb}(?![\w-])", page):
            complaints.append(f"{program}: the manual page does not name {verb}")
        offered, fault = complete(files["completion"], program, [verb] if verb else [])
        if fault:
            complaints.append(f"{program} {verb}: the completion says {fault.strip()}")
        for option in sorted(wanted - offered):
            complaints.append(f"{program} {verb}: the completion lacks {option}")
        for option in sorted(offered - wanted):
            complaints.append(f"{program} {verb}: the completion offers {option}, help does not")
    for option in sorted(named - options(page)):
        complaints.append(f"{program}: the manual page lacks {option}")
    for option in sorted(options(page) - named):
        complaints.append(f"{program}: the manual page has {option}, help does not")
    return complaints


def help_of(program, *words):
    done = subprocess.run([program, *words, "--help"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    if done.returncode or done.stderr or not done.stdout.startswith("Usage: "):
        print(f"{program} {' '.join(words)} --help: status {done.returncode}: {done.stderr}")
        sys.exit(1)
    return done.stdout


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def sample(text="Usage: p\n  --one N  that\n", page=".BI \\-\\-one \" N\"\n", words="--one --help"):
    return {"program": "p", "help": {"": text}, "page": page,
            "completion": f"_p() {{ mapfile -t COMPREPLY < <(compgen -W '{words}' -- -); }}\n"
                          "complete -F _p p\n"}


if not BASH:
    print("bash is not installed")
    sys.exit(lint.SKIP)
path, page, completion = sys.argv[1:]
helps = {"": help_of(path)}
for line in helps[""].splitlines():
    verb = re.match(r"  ([a-z]+)  +\S", line)
    if verb:
        helps[verb.group(1)] = help_of(path, verb.group(1))
lint.run(find, {"program": os.path.basename(path), "help": helps, "page": read(page),
                "completion": read(completion)}, {
    "good": sample(),
    "page lacks": sample(page=""),
    "page has more": sample(page="\\-\\-one \\-\\-two"),
    "completion lacks": sample(words="--help"),
    "completion has more": sample(words="--one --two"),
    "verb": {**sample(), "help": {"": "--one", "run": "Usage"}},
})
