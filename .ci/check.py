"""Checks on the text of the repository that no compiler makes; `.ci/run source` runs all of them.

    python3 .ci/check.py                   all checks
    python3 .ci/check.py words lengths     only these

`words`     Retired names of `.ci/retired.txt` do not come back.
`lengths`   Rust files have at most 500 lines. (Functions: clippy, `too-many-lines-threshold`.)
`cycles`    Some folders of a package do not import each other.
`citations` Tests, files and folders that the documentation names exist.
`versions`  README.md, CONTRIBUTING.md and every Cargo.toml name the same Rust versions.
`rules`     The alert rules of the Kustomize component are those of alerts.yml.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 500
# A file may be longer when it says why, in a comment that begins like this.
LINES_REASON = "// Longer than 500 lines: "

# Module paths, relative to `src` of a package, that must not import each other in a circle.
ACYCLIC = {
    "zerocache-client": ["client", "memo", "near", "codec"],
    "zerocache-server": ["datagrams", "driver"],
    "zerocache-net": ["transport", "transport::framed"],
}

errors = []


def fail(check, message):
    errors.append(f"{check}: {message}")


def tracked(*patterns):
    out = subprocess.check_output(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, text=True)
    paths = (Path(name) for name in out.split("\0") if name)
    return [path for path in paths if (ROOT / path).is_file()]


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)"
    r"|(?P<string>b?c?r(?P<hashes>#*)\".*?\"(?P=hashes)|b?c?\"(?:\\.|[^\"\\])*\")"
    r"|(?P<char>b?'(?:\\[^']+|[^'\\])')",
    re.S,
)


def split_rust(text):
    """Returns the code without comments and strings, and the contents of the strings."""
    strings = []

    def replace(match):
        if match["string"]:
            strings.append(match["string"])
        blank = '""' if match["string"] else " "
        return blank + "\n" * match[0].count("\n")

    return TOKEN.sub(replace, text), strings


def retired():
    """Returns the list by kind and name: the new name, and the paths in which the old one stays."""
    words = {"name": {}, "file": {}, "json": {}, "flag": {}}
    for line in read(".ci/retired.txt").splitlines():
        fields = line.split("#")[0].split()
        if fields:
            kind, old, new, *exceptions = fields
            words[kind][old] = (new, exceptions)
    return words


def check_words():
    words = retired()

    def report(path, kind, names):
        for old in sorted(names & words[kind].keys()):
            new, exceptions = words[kind][old]
            if not any(str(path).startswith(exception) for exception in exceptions):
                fail("words", f"{path}: {old} is retired, use {new} (.ci/retired.txt)")

    for path in tracked():
        report(path, "file", {path.name})
    for path in tracked("*.rs"):
        code, strings = split_rust(read(path))
        report(path, "name", set(re.findall(r"[A-Za-z_]\w*", code)))
        # A JSON field or an option stands alone in quotes, also in a text of JSON.
        quoted = set(re.findall(r'\\?"(?:--)?([\w-]+)\\?"', "\n".join(strings)))
        report(path, "json", quoted)
        report(path, "flag", quoted)
    for path in tracked("*.md", "*.txt"):
        if path.name not in ("CHANGELOG.md", "retired.txt"):
            quoted = set(re.findall(r"`(?:--)?([\w-]+)`", read(path)))
            for kind in ("name", "json", "flag"):
                report(path, kind, quoted)


def check_lengths():
    for path in tracked("*.rs"):
        text = read(path)
        lines = text.count("\n")
        if lines > LINES_MAX and LINES_REASON not in text:
            fail("lengths", f"{path} has {lines} lines; the most is {LINES_MAX}")


def use_paths(code):
    """Yields the path of each `use`, trees taken apart, and each path that begins at the crate."""
    code = re.sub(r"\bpub\(in [^)]*\)", "pub", code)
    for match in re.finditer(r"\buse\s+([^;]+);", code):
        yield from expand(re.sub(r"\s+", "", match[1].replace(" as ", "@")))
    for match in re.finditer(r"\b(?:crate|super)(?:::\w+)+", code):
        yield match[0]


def expand(tree):
    if "{" not in tree:
        yield tree.split("@")[0]
        return
    head, rest = tree.split("{", 1)
    inner = rest[: rest.rindex("}")]
    depth, part = 0, ""
    for char in inner + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if part:
                yield from (head + one for one in expand(part))
            part = ""
        else:
            part += char


def module_of(path, package):
    parts = list(path.relative_to(Path(package, "src")).with_suffix("").parts)
    return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts


def is_test(path):
    return path.name == "tests.rs" or "tests" in path.parts


def without_tests(code):
    """Leaves out `#[cfg(test)] mod …`, which ends a file."""
    return re.split(r"#\[cfg\(test\)\]\s*mod\s+\w+\s*\{", code)[0]


def check_cycles():
    for package, groups in ACYCLIC.items():
        sources = [path for path in tracked(f"{package}/src/*.rs") if not is_test(path)]
        modules = {path: module_of(path, package) for path in sources}
        code = {path: without_tests(split_rust(read(path))[0]) for path in sources}
        # What the root re-exports is imported from where it is defined.
        exported = {}
        for path in sources:
            if modules[path] == [] and path.name == "lib.rs":
                for used in use_paths(code[path]):
                    parts = [part for part in used.split("::") if part not in ("crate", "self")]
                    exported.setdefault(parts[-1], parts[:-1])
        edges = defaultdict(lambda: defaultdict(set))
        for path in sources:
            here = modules[path]
            for used in use_paths(code[path]):
                there = absolute(used, here, exported)
                a, b = group_of(here, groups), group_of(there, groups)
                if a and b and a != b:
                    edges[a][b].add(f"{path} imports {used}")
        for cycle in find_cycles(groups, edges):
            lines = [f"{package}: {' and '.join(cycle)} import each other"]
            for a in cycle:
                for b in cycle:
                    lines += [f"    {line}" for line in sorted(edges[a].get(b, ()))]
            fail("cycles", "\n".join(lines))


def absolute(used, here, exported):
    """The module path that an import names, from the root of its package."""
    parts = used.split("::")
    if parts[0] == "crate":
        parts = parts[1:]
        if parts and parts[0] in exported:
            parts = exported[parts[0]] + parts
        return parts
    if parts[0] in ("self", "super"):
        base = list(here)
        while parts and parts[0] in ("self", "super"):
            if parts.pop(0) == "super":
                base = base[:-1]
        return base + parts
    return []


def group_of(module, groups):
    joined = "::".join(module)
    found = [group for group in groups if joined == group or joined.startswith(group + "::")]
    return max(found, key=len, default=None)


def find_cycles(groups, edges):
    """The sets of groups that reach each other."""
    reach = {group: {group} for group in groups}
    for _ in groups:
        for group in groups:
            for other in list(reach[group]):
                reach[group] |= set(edges[other])
    done = set()
    for group in groups:
        cycle = tuple(other for other in groups if other in reach[group] and group in reach[other])
        if len(cycle) > 1 and cycle not in done:
            done.add(cycle)
            yield cycle


def check_citations():
    functions = set()
    for path in tracked("*.rs"):
        functions |= set(re.findall(r"\b(?:fn|mod) (\w+)", read(path)))
    folders = {str(parent) for path in tracked() for parent in path.parents}
    paths = {str(path) for path in tracked()} | folders
    for page in ("docs/contract.md", "docs/reliability.md"):
        text = read(page)
        # The name of a test has three words at least.
        for name in sorted(set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", text))):
            if name not in functions:
                fail("citations", f"{page}: there is no test {name}")
        # `file: ` before a name of the table of cases.
        for file, names in re.findall(r"[|;] (\w+): ((?:`\w+`(?:, )?)+)", text):
            for name in re.findall(r"`(\w+)`", names):
                test = Path("tests/tests", f"{file}.rs")
                of_folder = tracked(f"tests/tests/{file}/*.rs")
                where = of_folder or tracked(f"zerocache-{file}/*.rs")
                where = [test] if str(test) in paths else where
                if not any(re.search(rf"\b(fn|mod) {name}\b", read(path)) for path in where):
                    fail("citations", f"{page}: {file} has no test {name}")
    for page in tracked("*.md"):
        if page.name == "CHANGELOG.md" or "decisions" in page.parts:
            continue
        for cited in re.findall(r"`((?:[\w.-]+/)+[a-z_{},./*-]+\.rs)`", read(page)):
            for path in braces(cited):
                path = path.removeprefix("../")
                known = any(f"/{known}".endswith(f"/{path}") for known in paths)
                if not known and "*" not in path:
                    fail("citations", f"{page}: there is no file {path}")


def braces(pattern):
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    start, end = pattern[: match.start()], pattern[match.end() :]
    return [path for one in match[1].split(",") for path in braces(start + one + end)]


def check_versions():
    workspace = re.search(r'^rust-version = "([\d.]+)"', read("Cargo.toml"), re.M)[1]
    versions = {workspace}
    for path in tracked("*Cargo.toml"):
        versions |= set(re.findall(r'^rust-version = "([\d.]+)"', read(path), re.M))
    newest = max(versions, key=lambda version: [int(part) for part in version.split(".")])
    for page in ("README.md", "CONTRIBUTING.md"):
        text = re.sub(r"\s+", " ", read(page))
        for version in sorted({workspace, newest}):
            if version not in text:
                fail("versions", f"{page} does not name Rust {version}, which a Cargo.toml needs")
    compiler = re.search(r'"rustc ([\d.]+)\."', read("zerocache-client/tests/ui.rs"))[1]
    if compiler not in read("CONTRIBUTING.md"):
        fail("versions", f"CONTRIBUTING.md does not name Rust {compiler}, which ui.rs needs")
    fuzz = re.search(r'^rust-version = "([\d.]+)"', read("fuzz/Cargo.toml"), re.M)[1]
    if fuzz != workspace:
        fail("versions", f"fuzz/Cargo.toml needs Rust {fuzz}, Cargo.toml {workspace}")


def check_rules():
    # Kustomize reads no files outside its folder, and a rule of Kubernetes is not a list of files.
    copy = Path("deploy/kustomize/components/monitoring/rules.yaml")
    rules = read("deploy/prometheus/alerts.yml").partition("groups:\n")[2]
    if read(copy).partition("  groups:\n")[2] != "".join(f"  {line}" for line in rules.splitlines(True)):
        fail("rules", f"{copy}: below `groups`, not the text of deploy/prometheus/alerts.yml")


CHECKS = {
    "words": check_words,
    "lengths": check_lengths,
    "cycles": check_cycles,
    "citations": check_citations,
    "versions": check_versions,
    "rules": check_rules,
}

for name in sys.argv[1:] or CHECKS:
    CHECKS[name]()
for error in errors:
    print(error, file=sys.stderr)
sys.exit(1 if errors else 0)
