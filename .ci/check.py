"""What the tools do not check themselves; `.ci/run` calls these, each exits 1 with the list of what is wrong.

    python .ci/check.py notebooks            every notebook is valid, executed, without errors, machine paths or misspelt flags
    python .ci/check.py files                no tracked text names a machine's folder, and no data is tracked
    python .ci/check.py imports              the modules import what settings.ini requires, no more and no less
    python .ci/check.py commands             README.md gives the commands that CI runs
    python .ci/check.py completed LOG        the log of `nbdev_test --do_print` completes every notebook
    python .ci/check.py canary FOLDER        write a notebook that passes and one that fails
    python .ci/check.py run NOTEBOOK FOLDER  papermill's notebook is executed, and one run under FOLDER has its metrics
    python .ci/check.py failure NOTEBOOK WORD...   papermill's notebook is kept and ends in an error with these words
    python .ci/check.py audit SAVED EXECUTED  the numbers of 52_audit, run again, are those that were saved
    python .ci/check.py unsafe               no call that could run what is in a file, nor one of the others that bandit knows, but for a few with their reasons
    python .ci/check.py still NOTEBOOK       take live widgets out of a saved notebook, so that it reads well without a kernel: their text stays
"""
import ast, configparser, json, math, re, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').glob('*.ipynb') if p.name[0] not in '_.')
SETTINGS = configparser.ConfigParser(delimiters=['='], interpolation=None)
SETTINGS.read(ROOT/'settings.ini', encoding='utf-8')
FLAGS = set(SETTINGS['DEFAULT']['tst_flags'].split())
# the directives in use; another one is taken for a misspelling
DIRECTIVES = FLAGS | {'default_exp', 'export', 'exporti', 'exports', 'hide', 'echo:', 'fig-cap:', 'code-fold:', 'warning:', 'output:'}
MACHINE = re.compile(r'(?<![\w.~/*])/(?:home|root|Users|tmp|mnt|opt|var|work|workspace|private|content|kaggle)/[\w.-]|[A-Z]:\\\\?Users|site-packages')
WIDGET = 'application/vnd.jupyter.widget-view+json'
INHERITED = {'forward', 'backward', 'flush', 'find_class'}  # methods that the base class, or its protocol, describes
BY_PAPERMILL = {'99_reproduce'}  # may say skip_exec: the papermill steps run it
README_COMMANDS = ['pip install -e .', "pip install -e '.[dev]'", 'nbdev_test', 'papermill nbs/99_reproduce.ipynb', 'jupyter lab', 'import mhcvse']

PACKAGE = {'IPython': 'ipython', 'PIL': 'pillow', 'faiss': 'faiss-cpu'}  # import name: package name
TOOLS = {'fastcore', 'jupyterlab', 'papermill', 'ipykernel', 'ipywidgets'}  # used by commands and notebooks, not by modules

EXCEPTIONS = {  # (file, bandit's name of it): why it does no harm; one that is not needed any more is an error
    ('mhcvse/interop.py', 'B403'): 'imports pickle for the one unpickler of the package, which knows stand-ins for arrays and nothing else: 35_interop',
    ('mhcvse/page.py', 'B405'): 'ElementTree writes pages; nothing is parsed with it',
    ('mhcvse/runs.py', 'B403'): 'pickletools looks through a pickle and makes nothing of it',
    **{('mhcvse/runs.py', b): 'asks git for the commit: fixed words, no shell, ten seconds' for b in ('B404', 'B603', 'B607')},
    **{('.ci/browser.py', b): 'starts JupyterLab on this machine and asks it whether it is up' for b in ('B404', 'B603', 'B310')},
    **{('.ci/check.py', b): 'asks git for the tracked files, and starts bandit' for b in ('B404', 'B603', 'B607')},
    **{('.ci/mutate.py', b): 'runs the cells of the own notebooks with a line changed, and goes on after a mutant that fails' for b in ('B102', 'B112')},
}
CANARY = {  # what the scan must find, or it finds nothing
    'B301': 'import pickle\npickle.load(open("x", "rb"))', 'B614': 'import torch\ntorch.load("x")', 'B307': 'eval(input())', 'B102': 'exec("1")', 'B602': 'import subprocess\nsubprocess.run("ls", shell=True)',
    'B605': 'import os\nos.system("ls " + input())', 'B506': 'import yaml\nyaml.load("x")', 'B310': 'import urllib.request\nurllib.request.urlopen(input())', 'B202': 'import tarfile\ntarfile.open("x").extractall()',
    'np.load': 'import numpy as np\nnp.load("x")'}

text = lambda x: x if isinstance(x, str) else ''.join(x or '')
load = lambda path: json.loads(Path(path).read_text(encoding='utf-8'))

def done(problems, what):
    "Print the problems and exit 1, or print what was found good."
    if problems: sys.exit('\n'.join(map(str, problems)) + f'\n{len(problems)} problems')
    print(f'| {what}')

def directives(source):
    "Every `#|` line of a cell as (line number, its first word, whether it stands before the code)."
    out, leading = [], True
    for n, line in enumerate(source.split('\n')):
        found = re.match(r'\s*#\s*\|\s*(\S+)', line)
        if found: out.append((n, found[1], leading and line.startswith('#|')))
        elif line.strip(): leading = False
    return out

def output_text(out):
    "What a reader sees of an output, pictures left out."
    parts = [text(out.get('text'))] + [text(v) for k, v in out.get('data', {}).items() if k.startswith('text/')]
    return re.sub(r'base64,[A-Za-z0-9+/=\s]+', '', '\n'.join(parts + list(out.get('traceback', []))))

def shows(source):
    "'picture', 'output' or None: what running the cell surely leaves, read from its top-level statements."
    try: body = ast.parse(source).body
    except SyntaxError: return None  # a magic
    names = [ast.unparse(n.value.func) for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)]
    calls = {ast.unparse(n.func) for s in body if not isinstance(s, (ast.FunctionDef, ast.ClassDef)) for n in ast.walk(s) if isinstance(n, ast.Call)}
    if 'plt.subplots' in calls and 'plt.close' not in calls: return 'picture'
    if {'print', 'display'} & set(names): return 'output'
    last = body[-1] if body else None
    silent = source.rstrip().endswith(';')
    return 'output' if isinstance(last, ast.Expr) and isinstance(last.value, (ast.Name, ast.Attribute, ast.JoinedStr)) and not silent else None

def code_problems(name, c):
    "What is wrong with one code cell."
    source, outputs = text(c['source']), c.get('outputs', [])
    given = directives(source)
    words = {w for _, w, ok in given if ok}
    for n, w, ok in given:
        if w not in DIRECTIVES: yield f'`#| {w}` is not one of the directives in use'
        elif not ok: yield f'`#| {w}` counts only on the first lines of a cell'
    for o in outputs:
        if o['output_type'] == 'error': yield f"saved with an error: {o.get('ename')}: {o.get('evalue')}"
        found = MACHINE.search(output_text(o))
        if found: yield f'an output names a machine path: …{found[0]}…'
        if WIDGET in o.get('data', {}): yield 'an output is a live widget, which nobody sees without a kernel: python .ci/check.py still NOTEBOOK'
        if re.search(r' at 0x[0-9a-f]{6,}', output_text(o)): yield 'an output holds a memory address'
    if words & (FLAGS | {'export', 'exporti', 'exports'}): return
    wants = shows(source)
    pictures = [o for o in outputs if any(k.startswith('image/') for k in o.get('data', {}))]
    if wants and not outputs: yield 'it was saved without being run: its output is missing'
    elif wants == 'picture' and not pictures: yield 'its figure is missing'


def import_problems(name, c, notebook):
    "An exported or test import from a notebook that comes later."
    for mod in re.findall(r'^\s*(?:from|import) mhcvse\.(\w+)', text(c['source']), re.M):
        if name[:2].isdigit() and notebook.get(mod, '') > name: yield f'imports mhcvse.{mod}, which comes later ({notebook[mod]})'

def style_problems(c):
    "Exported definitions and methods without a docstring, or over 40 lines."
    source = text(c['source'])
    if not any(w == 'export' for _, w, _ in directives(source)): return
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef): continue
        lines = node.end_lineno - node.lineno + 1
        if lines > 40: yield f'{node.name} is {lines} lines long'
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not ast.get_docstring(node): yield f'{node.name} has no docstring'
        for m in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(m, ast.FunctionDef) and m.name[0] != '_' and m.name not in INHERITED and not ast.get_docstring(m): yield f'{node.name}.{m.name} has no docstring'

def twice(cells):
    "Names that two exported cells of a notebook define: the first definition would be hidden by the second."
    sources = [text(c['source']) for c in cells if c['cell_type'] == 'code']
    names = [n.name for s in sources if any(w == 'export' for _, w, _ in directives(s)) for n in ast.parse(s).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    return sorted({n for n in names if names.count(n) > 1})

def notebooks():
    "Every saved notebook is what a clean run leaves."
    import nbformat
    problems, flagged, exported = [], 0, {}
    for path in NOTEBOOKS:
        for c in load(path)['cells']:
            found = re.search(r'^#\|\s*default_exp\s+(\S+)', text(c['source']), re.M) if c['cell_type'] == 'code' else None
            if found:
                if found[1] in exported: problems.append(f'{path.name}: {found[1]} is already the module of {exported[found[1]]}')
                exported[found[1]] = path.name
    for path in NOTEBOOKS:
        nb = load(path)
        say = lambda i, c, ps: problems.extend(f"{path.name}, cell {i} ({text(c['source']).strip().splitlines()[0][:60] if text(c['source']).strip() else 'empty'}): {p}" for p in ps)
        try: nbformat.validate(nb)
        except nbformat.ValidationError as e: problems.append(f'{path.name}: not a valid notebook: {e.message}')
        problems += [f'{path.name}: {n} is exported twice' for n in twice(nb['cells'])]
        ids = [c.get('id') for c in nb['cells']]
        if None in ids or len(set(ids)) < len(ids): problems.append(f'{path.name}: cell ids are missing or doubled')
        first = next((text(c['source']) for c in nb['cells'] if c['cell_type'] == 'markdown'), '')
        if 'skip_exec' in json.dumps([c['source'] for c in nb['cells'] if c['cell_type'] == 'raw']) and path.stem not in BY_PAPERMILL:
            problems.append(f'{path.name}: nbdev_test skips it, and papermill does not run it either')
        if not re.match(r'# .+\n+> .+', first): problems.append(f'{path.name}: its first cell should be a title and a one-sentence `>` subtitle')
        if path.stat().st_size > 3_000_000: problems.append(f'{path.name}: {path.stat().st_size/1e6:.1f} MB')
        for i, c in enumerate(nb['cells']):
            if re.search(r'^(<{7}|>{7}|={7})( |$)', text(c['source']), re.M): say(i, c, ['a merge conflict'])
            if c['cell_type'] != 'code': continue
            say(i, c, [*code_problems(path.name, c), *import_problems(path.name, c, exported), *style_problems(c)])
            flagged += any(w in FLAGS for _, w, _ in directives(text(c['source']))) and not c.get('outputs')
        tags = [c for c in nb['cells'] if 'parameters' in c['metadata'].get('tags', [])]
        if path.stem in BY_PAPERMILL and len(tags) != 1: problems.append(f'{path.name}: {len(tags)} cells are tagged `parameters`, not 1: papermill would run the defaults')
    if not NOTEBOOKS: problems.append('there are no notebooks')
    done(problems, f'{len(NOTEBOOKS)} notebooks, {len(exported)} modules; {flagged} flagged cells are saved without output')

def files():
    "No tracked text names a folder of a machine; no data, weights or large file is tracked."
    tracked = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    problems = []
    for name in filter(None, tracked.split('\0')):
        path = ROOT/name
        if not path.is_file(): continue
        if path.stat().st_size > 5_000_000: problems.append(f'{name}: {path.stat().st_size/1e6:.1f} MB')
        if path.suffix in {'.npy', '.h5', '.safetensors', '.pt', '.pth', '.tar', '.pkl'}: problems.append(f'{name}: data or weights')
        if path.suffix in {'.ipynb', '.png', '.jpg', '.gif'} or path.resolve() == Path(__file__).resolve(): continue
        for n, line in enumerate(path.read_text(encoding='utf-8', errors='replace').split('\n'), 1):
            found = MACHINE.search(line)
            if found: problems.append(f'{name}:{n}: a machine path: …{found[0]}…')
            if path.name != 'LICENSE' and re.search(r'--(extra-)?index-url|--find-links', line): problems.append(f'{name}:{n}: names a registry')
    done(problems, 'no machine path, registry or data')

def imports():
    "The modules import what settings.ini requires, and it requires what they import; what an extra requires is optional."
    names = lambda key: {re.match(r'[\w-]+', r)[0] for r in SETTINGS['DEFAULT'][key].split()}
    stated, optional = names('requirements'), {n for k in SETTINGS['DEFAULT'] if k.endswith('_requirements') and k != 'dev_requirements' for n in names(k)}
    used = {}
    for path in sorted((ROOT/SETTINGS['DEFAULT']['lib_path']).glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for n in names: used.setdefault(PACKAGE.get(n.split('.')[0], n.split('.')[0]), set()).add(path.name)
    for std in sys.stdlib_module_names | {'mhcvse'}: used.pop(std, None)
    problems = [f"{n} is imported by {', '.join(sorted(f))}, but settings.ini does not require it" for n, f in used.items() if n not in stated | optional]
    problems += [f'settings.ini requires {n}, but no module imports it' for n in sorted(stated - set(used) - TOOLS)]
    done(problems, f'{len(used)} packages are imported and required')

def commands():
    "README.md has the commands that `.ci/run` runs."
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    done([f'README.md does not say `{c}`' for c in README_COMMANDS if c not in readme], f'README.md gives {len(README_COMMANDS)} commands that are run here')

def completed(log):
    "Every notebook is among those `nbdev_test` completed, and it said so."
    lines = Path(log).read_text(encoding='utf-8')
    seen = {Path(m).name for m in re.findall(r'^- Completed (.+\.ipynb)', lines, re.M)}
    problems = [f'{p.name} was not run' for p in NOTEBOOKS if p.name not in seen and p.stem not in BY_PAPERMILL]
    if 'Success.' not in lines: problems.append('nbdev_test did not report success')
    done(problems, f'{len(seen)} notebooks run')

def canary(folder):
    "`good.ipynb` passes unless its flagged cell runs; `bad.ipynb` fails."
    cell = lambda i, s: dict(cell_type='code', id=f'c{i}', metadata={}, execution_count=None, outputs=[], source=s)
    for name, sources in dict(good=['assert True', '#| slow\nassert False'], bad=['assert True', 'assert False']).items():
        nb = dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
                  cells=[cell(i, s) for i, s in enumerate(sources)])
        (Path(folder)/f'{name}.ipynb').write_text(json.dumps(nb), encoding='utf-8')

def run(notebook, folder):
    "One run under `folder` with metrics; the notebook is executed to its end without an error."
    cells = [c for c in load(notebook)['cells'] if c['cell_type'] == 'code']
    problems = [f'cell {i} was not executed' for i, c in enumerate(cells) if c['execution_count'] is None and text(c['source']).strip()]
    found = sorted(Path(folder).glob('**/metrics.json'))
    if len(found) != 1: problems.append(f'{len(found)} metrics.json under {folder}, not 1: {[str(f) for f in found]}')
    for f in found:
        if not isinstance(load(f).get('mR'), (int, float)): problems.append(f'{f.name} has no mR')
        history = f.with_name('history.json')
        epochs = load(history) if history.exists() else []
        if isinstance(epochs, dict): epochs = next(iter(epochs.values()))
        if len(epochs) != 2: problems.append(f'history.json has {len(epochs)} epochs, not the 2 that were asked for')
    if not any('parameters' in str(c['metadata'].get('tags')) for c in cells): problems.append('no parameters were injected')
    done(problems, f"{len(cells)} cells; mR {', '.join(str(load(f).get('mR')) for f in found)} on the demonstration after 2 epochs")

def failure(notebook, *words):
    "The executed notebook is there, and its error says these words."
    errors = [f"{o.get('ename')}: {o.get('evalue')}" for c in load(notebook)['cells'] for o in c.get('outputs', []) if o['output_type'] == 'error']
    done([f'no error says {w!r}: {errors}' for w in words if not any(w in e for e in errors)], '; '.join(errors))

def scan(folder, *paths):
    "(file, line, name, what) of every call that bandit warns of, or that loads an array without saying allow_pickle=False."
    out = subprocess.run([sys.executable, '-m', 'bandit', '-q', '-r', *paths, '-f', 'json'], cwd=folder, capture_output=True, text=True)
    if out.returncode not in (0, 1): sys.exit(f'bandit failed: {out.stderr}')
    found = json.loads(out.stdout)
    if found['errors']: sys.exit(f"bandit could not read: {found['errors']}")
    rows = [(r['filename'].removeprefix('./'), r['line_number'], r['test_id'], r['issue_text']) for r in found['results']]
    for path in sorted(q for p in paths for q in ([folder/p] if (folder/p).is_file() else (folder/p).glob('*.py'))):
        for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(n, ast.Call) and ast.unparse(n.func) in ('np.load', 'numpy.load') and 'allow_pickle=False' not in ast.unparse(n):
                rows.append((path.relative_to(folder).as_posix(), n.lineno, 'np.load', 'an array is loaded without allow_pickle=False'))
    return rows

def unsafe():
    "No unsafe call in the package or here, but for the exceptions; and the scan finds each kind in a file made for it."
    with tempfile.TemporaryDirectory() as d:
        for name, code in CANARY.items(): (Path(d)/f'{name}.py').write_text(code + '\n', encoding='utf-8')
        found = {(f, b) for f, _, b, _ in scan(Path(d), *(f'{name}.py' for name in CANARY))}
    problems = [f'the scan does not find {name}: {code!r}' for name, code in CANARY.items() if (f'{name}.py', name) not in found]
    rows = scan(ROOT, SETTINGS['DEFAULT']['lib_path'], '.ci')
    problems += [f'{f}:{n}: {b} {what}' for f, n, b, what in rows if (f, b) not in EXCEPTIONS]
    problems += [f'the exception {k} is not needed any more' for k in EXCEPTIONS if k not in {(f, b) for f, _, b, _ in rows}]
    done(problems, f'no unsafe call; {len(EXCEPTIONS)} exceptions with their reasons; {len(CANARY)} kinds are found where they are')

def still(notebook):
    "Take live widgets and their state out of a notebook."
    nb = load(notebook)
    nb['metadata'].pop('widgets', None)
    for c in nb['cells']:
        for o in c.get('outputs', []): o.get('data', {}).pop(WIDGET, None)
    Path(notebook).write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')

def ledger(notebook):
    "What the audit prints for the machine, from an executed notebook: the numbers of each finding, and how far those of training may be off."
    found = []
    for c in load(notebook)['cells']:
        printed = ''.join(text(o.get('text')) for o in c.get('outputs', []) if o.get('name') == 'stdout')
        try: value = json.loads(printed)
        except json.JSONDecodeError: continue
        if isinstance(value, dict) and 'audit' in value: found.append(value)
    if len(found) != 1: sys.exit(f"{notebook}: {len(found)} outputs hold the audit's numbers, not 1")
    return {(f, k): v for f, values in found[0]['audit'].items() for k, v in values.items()}, found[0]['tolerance']

def audit(saved, executed):
    "Every number of the audit is as it was saved: computed ones to a relative 1e-6 (1e-9 at zero), those of training to the tolerance they state."
    (old, tolerance), (new, stated) = ledger(saved), ledger(executed)
    problems = [f'{f}, {k}: only in the {where} notebook' for where, a, b in (('saved', old, new), ('executed', new, old)) for f, k in a if (f, k) not in b]
    if tolerance != stated: problems.append(f'the tolerances differ: {tolerance} were saved, {stated} are stated now')
    if not old: problems.append('no numbers were saved')
    for (f, k), a in old.items():
        b = new.get((f, k), a)
        close = abs(a - b) <= tolerance[f] if f in tolerance else math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
        if not close: problems.append(f"{f}, {k}: {a!r} was saved, {b!r} is computed now ({f'±{tolerance[f]:g} is allowed' if f in tolerance else 'computed numbers should agree'})")
    done(problems, f'{len(old)} numbers of {len({f for f, _ in old})} findings are as they were saved')

if __name__ == '__main__':
    commands_ = dict(notebooks=notebooks, files=files, imports=imports, commands=commands, completed=completed, canary=canary, run=run, failure=failure, audit=audit, unsafe=unsafe, still=still)
    if len(sys.argv) < 2 or sys.argv[1] not in commands_: sys.exit(__doc__)
    commands_[sys.argv[1]](*sys.argv[2:])
