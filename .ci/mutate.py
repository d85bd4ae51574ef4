"""Do the notebooks' tests notice a wrong formula? Change each exported formula a little and run the cells below it.

    python .ci/mutate.py                       the notebooks in DEFAULT, two mutants at a time
    python .ci/mutate.py 30_losses 31_schedule --jobs 1 --only ranking_loss
    python .ci/mutate.py --list 24_fusion      show the mutants, run none

A mutant is one exported cell with one change: a sign, `*` for `/`, a term or a call dropped, a constant, a comparison, `min`
for `max`, the branches of an `if`, a keyword argument. It is killed when a later unflagged cell of its notebook fails, and
survives when all pass. The unchanged cells above run once: each mutant is a fork that goes on from there.
Left alone: messages, annotations, `device=` (it would need a GPU). Survivors that cannot be told from the original are
explained in mutants.txt; exit status 1 if there are others.
"""
import argparse, ast, contextlib, copy, io, json, os, re, signal, sys, time, warnings
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
NBS = HERE.parent/'nbs'
DEFAULT = ['20_encoders', '21_attention', '22_graph', '23_consensus', '24_fusion', '25_model', '30_losses', '31_schedule', '32_metrics']
SKIP = {'slow', 'gpu', 'realdata', 'network', 'eval:'}
EXPLAINED = HERE/'mutants.txt'

# ---------------------------------------------------------------------------------------------- what is changed
BINARY = {ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
          ast.FloorDiv: [ast.Mult], ast.Mod: [ast.Mult], ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd]}
COMPARE = {ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
           ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn], ast.NotIn: [ast.In]}
SWAPS = [('min', 'max'), ('amin', 'amax'), ('argmin', 'argmax'), ('minimum', 'maximum'), ('sum', 'mean'), ('any', 'all'), ('zeros', 'ones'),
         ('zeros_like', 'ones_like'), ('exp', 'log'), ('sin', 'cos'), ('floor', 'ceil'), ('tanh', 'sigmoid'), ('masked_mean', 'masked_max')]
SWAP = {a: b for p in SWAPS for a, b in (p, p[::-1])}
DROP = set('''unit normalize tanh sigmoid relu leaky_relu softmax dropout sqrt exp log abs clamp clamp_min clamp_max detach masked_fill
    transpose t mT square float long bool contiguous norm act softmax log_softmax sort flip round'''.split())

def changes(node):
    "Every (replacement, word) for one node."
    sub = lambda **kw: type(node)(**{**{f: getattr(node, f, None) for f in node._fields}, **kw})
    if isinstance(node, ast.BinOp):
        for op in BINARY.get(type(node.op), []): yield sub(op=op())
        yield node.left
        yield node.right
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)): yield sub(left=node.right, right=node.left)
    elif isinstance(node, ast.UnaryOp):
        index = isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
        yield ast.Constant(0) if index else node.operand  # -1 is nearly always an axis or a position: 1 could be the same one
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for op in COMPARE[type(node.ops[0])]: yield sub(ops=[op()])
    elif isinstance(node, ast.BoolOp): yield sub(op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.IfExp): yield sub(body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Constant): yield from (ast.Constant(v) for v in other_values(node.value))
    elif isinstance(node, ast.Attribute) and node.attr in ('T', 'mT'): yield node.value
    elif isinstance(node, ast.Call): yield from call_changes(node, sub)

def other_values(v):
    "Constants near `v`."
    if isinstance(v, bool): return [not v]
    if isinstance(v, int): return [v + 1, v - 1]
    if isinstance(v, float): return [v*2, -v] if v else [1.]
    return []

def call_changes(node, sub):
    "A call under another name, without itself, or without one of its keyword arguments."
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
    if name in SWAP:
        new = copy.copy(node.func)
        setattr(new, 'attr' if isinstance(new, ast.Attribute) else 'id', SWAP[name])
        yield sub(func=new)
    method = isinstance(node.func, ast.Attribute) and not (isinstance(node.func.value, ast.Name) and node.func.value.id in ('F', 'torch', 'np', 'math', 'self', 'nn'))
    if name in DROP and (method or node.args): yield node.func.value if method else node.args[0]
    for i, k in enumerate(node.keywords):
        if k.arg and k.arg != 'device': yield sub(keywords=node.keywords[:i] + node.keywords[i+1:])

def statement_changes(node):
    "Replacements of a whole statement."
    if isinstance(node, ast.If): yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    if isinstance(node, ast.AugAssign):
        for op in BINARY.get(type(node.op), []): yield ast.AugAssign(node.target, op(), node.value)
    if isinstance(node, (ast.AugAssign, ast.Expr)) and not isinstance(getattr(node, 'value', None), (ast.Constant, ast.Yield)): yield ast.Pass()

def mutants(source):
    "Every (function, source line, before, after, whole cell) of an exported cell; its docstrings, messages and annotations stay."
    tree, found, defaults = ast.parse(source), [], {}
    def visit(node, where, place):
        if isinstance(node, (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert)): return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant): return
        inner = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): where = where + [node.name]
        if isinstance(node, ast.arguments): defaults.update(default_names(node))
        if node in defaults: where = where + [f'{defaults[node]}=']
        for new in [*changes(node), *statement_changes(node)]: found.append(('.'.join(where), node, new, place))
        for field, value in ast.iter_fields(node) if not inner else []:
            if field in ('annotation', 'returns', 'decorator_list', 'slice_'): continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST): visit(child, where, place + [(field, i if isinstance(value, list) else None)])
    visit(tree, [], [])
    for where, node, new, place in found:
        cell = copy.deepcopy(tree)
        parent = cell
        for field, i in place[:-1]: parent = getattr(parent, field) if i is None else getattr(parent, field)[i]
        field, i = place[-1]
        if i is None: setattr(parent, field, copy.deepcopy(new))
        else: getattr(parent, field)[i] = copy.deepcopy(new)
        try: after = ast.unparse(ast.fix_missing_locations(cell))
        except Exception: continue
        if after == ast.unparse(tree): continue
        line = source.split('\n')[node.lineno - 1].strip()
        yield where or '(cell)', line, short(node), less(node, new) or short(new), after

def default_names(args):
    "{a default's node: the argument it belongs to}"
    given = args.posonlyargs + args.args
    pairs = [*zip(given[len(given) - len(args.defaults):], args.defaults), *zip(args.kwonlyargs, args.kw_defaults)]
    return {d: a.arg for a, d in pairs if d is not None}

def less(node, new):
    "'without k=v' when `new` is the same call without a keyword argument."
    if not (isinstance(node, ast.Call) and isinstance(new, ast.Call) and new.func is node.func): return None
    return next((f'without {short(k)}' for k in node.keywords if k not in new.keywords), None)

def short(node):
    "A node on one line."
    s = ' '.join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return s if len(s) < 110 else s[:90] + ' … ' + s[-15:]

# ---------------------------------------------------------------------------------------------- running cells
def cells_of(name):
    "The code cells that a test run executes, as (source, whether exported)."
    out = []
    for c in json.loads((NBS/f'{name}.ipynb').read_text(encoding='utf-8'))['cells']:
        source = ''.join(c['source'])
        flags = {w for l in source.split('\n') for w in l[2:].split() if l.startswith('#|')}
        if c['cell_type'] != 'code' or flags & SKIP: continue
        out.append((re.sub(r'^\s*[%!].*$', 'pass', source, flags=re.M), 'export' in flags))
    return out

def run(source, space):
    "Run a cell's source in silence; figures are closed, so that they do not pile up."
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        exec(compile(source, 'cell', 'exec'), space)
    if 'matplotlib.pyplot' in sys.modules: sys.modules['matplotlib.pyplot'].close('all')

class Pool:
    "Forks of this process, at most `jobs` at a time, each with a limit in seconds."
    def __init__(self, jobs): self.jobs, self.live, self.results = jobs, {}, {}
    def start(self, key, limit, work):
        while len(self.live) >= self.jobs: self.collect()
        pid = os.fork()
        if pid == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2): os.dup2(null, fd)
            try: work()
            except BaseException: os._exit(1)
            os._exit(0)
        self.live[pid] = key, time.monotonic() + limit
    def collect(self):
        for pid, (key, until) in list(self.live.items()):
            if time.monotonic() > until: os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done: self.results[key] = 'survived' if status == 0 else 'killed'; del self.live[pid]
        time.sleep(.005)
    def wait(self):
        while self.live: self.collect()

def test(name, a):
    "Run every mutant of a notebook; returns [(key, line, result)]."
    import torch, matplotlib
    matplotlib.use('Agg'); torch.set_num_threads(1)
    sys.path.insert(0, str(NBS.parent)); os.chdir(NBS)
    cells, space, pool, keys, seen = cells_of(name), {'__name__': '__main__', 'display': lambda *a, **kw: None}, Pool(a.jobs), {}, Counter()
    rest = lambda i: [run(s, space) for s, _ in cells[i+1:]]
    began = time.monotonic()
    pool.start('unchanged', 600, lambda: rest(-1)); pool.wait()
    whole = time.monotonic() - began
    if pool.results.pop('unchanged') == 'killed': sys.exit(f'{name}: it fails without any change')
    for i, (source, exported) in enumerate(cells):
        for where, line, before, after, new in (mutants(source) if exported else []):
            key = f'{name} | {where} | {before} -> {after}'
            seen[key] += 1
            if seen[key] > 1: key += f' #{seen[key]}'
            if a.only and not re.search(a.only, key): continue
            keys[key] = line
            if not a.list: pool.start(key, 15 + 4*whole, lambda: (run(new, space), rest(i)))
        run(source, space)
    pool.wait()
    if a.list: print(*keys, sep='\n')
    return [(k, l, pool.results.get(k, 'listed')) for k, l in keys.items()]

def in_fork(name, a):
    "`test` in a process of its own, so that notebooks do not share modules or state."
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(r)
        try:
            out = json.dumps(test(name, a))
            sys.stdout.flush()
            with os.fdopen(w, 'w') as f: f.write(out)
            os._exit(0)
        except BaseException as e: print(e if isinstance(e, SystemExit) else f'{name}: {e!r}', flush=True); os._exit(1)
    os.close(w)
    with os.fdopen(r) as f: text = f.read()
    os.wait()
    return json.loads(text) if text else None

def explained():
    "[(a pattern of keys, as written)] from mutants.txt; each needs its reason on the next, indented line."
    lines = EXPLAINED.read_text(encoding='utf-8').split('\n') if EXPLAINED.exists() else []
    keys = [k for k, reason in zip(lines, lines[1:]) if k and k[0] not in ' #' and reason.startswith('  ')]
    return [(re.compile(re.escape(k).replace(r'\*\*\*', '.*')), k) for k in keys]

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', default=DEFAULT); p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--only', help='a regular expression that the mutant must match'); p.add_argument('--list', action='store_true')
    a = p.parse_args()
    os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='Agg')
    reasons, open_, used = explained(), 0, set()
    for name in a.notebooks:
        began, results = time.monotonic(), in_fork(name, a)
        if results is None: open_ += 1; continue
        left, new = [(k, l) for k, l, r in results if r == 'survived'], []
        for k, l in left:
            why = {text for pattern, text in reasons if pattern.fullmatch(k)}
            used |= why
            if not why: new.append((k, l))
        print(f'{name}: {len(results)} mutants, {len(results) - len(left)} killed, {len(left) - len(new)} survive and are explained, '
              f'{len(new)} survive ({time.monotonic() - began:.0f} s)', flush=True)
        for k, l in new: print(f"  {k.split(' | ', 1)[1]}\n      in: {l}", flush=True)
        open_ += len(new)
    stale = [text for _, text in reasons if text not in used and text.split(' | ')[0] in a.notebooks] if not (a.only or a.list) else []
    if stale: print('explained, but no longer there or no longer surviving:', *stale, sep='\n  ')
    sys.exit(bool(open_))
