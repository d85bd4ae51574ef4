"""README.md from nbs/index.ipynb, as saved; figures go to nbs/images.

    python .ci/readme.py            write README.md and its images
    python .ci/readme.py --check    exit 1 if they are not what the notebook would give, or if what it shows of another notebook is not what that one was saved with

Prose is copied, with links made relative to the root; code becomes a fenced block with its output below it.
`#| hide` drops a cell, `#| echo: false` its code. A link to a file that does not exist is an error.
"""
import ast, base64, json, os, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK, README, IMAGES = ROOT/'nbs'/'index.ipynb', ROOT/'README.md', ROOT/'nbs'/'images'
HEADER = '<!-- Made from nbs/index.ipynb by .ci/readme.py: edit the notebook. -->\n\n'
text = lambda x: x if isinstance(x, str) else ''.join(x)
load = lambda path: json.loads(path.read_text(encoding='utf-8'))

def from_root(link):
    "A link written in nbs/ as it must be in README.md; outside addresses and anchors stay."
    if re.match(r'[a-z][a-z0-9+.-]*:|#', link): return link
    path, mark, anchor = link.partition('#')
    path = os.path.normpath(os.path.join('nbs', path)).replace(os.sep, '/')
    if not (ROOT/path).exists(): sys.exit(f'index.ipynb links to {link}, but there is no {path}')
    return path + mark + anchor

def prose(source):
    "Markdown with its links and images relative to the root; code in it is left alone."
    parts = re.split(r'(^```.*?^```|`[^`\n]*`)', source, flags=re.M | re.S)
    link = lambda s: re.sub(r'(\]\()([^)\s]+)', lambda m: m[1] + from_root(m[2]), s)
    tag = lambda s: re.sub(r'((?:src|href)=")([^"]+)', lambda m: m[1] + from_root(m[2]), s)
    # a code span may lie inside a link's text, so a part may begin with '](...)'
    return ''.join(p if i % 2 else tag(link(p)) for i, p in enumerate(parts))

def output(cell, n, out, images):
    "One saved output as Markdown; a picture is added to `images`."
    if out['output_type'] == 'stream': return fenced(text(out['text']))
    if out['output_type'] == 'error': sys.exit(f"index.ipynb is saved with an error: {out.get('ename')}")
    data = out.get('data', {})
    if 'image/png' in data:
        name = f"index-{cell['id']}-{n}.png"
        images[name] = base64.b64decode(text(data['image/png']))
        return f'![{caption(cell)}](nbs/images/{name})'
    if 'text/markdown' in data: return prose(text(data['text/markdown']))
    if 'text/html' in data: return re.sub(r'<style.*?</style>\s*|^\s+', '', text(data['text/html']), flags=re.M | re.S)
    return fenced(text(data.get('text/plain', '')))

def fenced(s, kind=''): return f'```{kind}\n{s.rstrip()}\n```' if s.strip() else ''

def caption(cell):
    "What a figure shows: the cell's `#| fig-cap:` line, or nothing."
    found = re.search(r'^#\|\s*fig-cap:\s*(.+)$', text(cell['source']), re.M)
    return found[1].strip(' "\'') if found else ''

def convert(cell, images):
    "The parts of the README that one cell gives."
    source = text(cell['source'])
    if cell['cell_type'] == 'markdown': return [prose(source)]
    flags = re.findall(r'^#\|\s*(.+?)\s*$', source, re.M)
    if cell['cell_type'] != 'code' or 'hide' in flags or 'default_exp' in ' '.join(flags): return []
    code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
    shown = [] if 'echo: false' in flags or not code else [fenced(code, 'python')]
    return shown + [output(cell, n, o, images) for n, o in enumerate(cell.get('outputs', []))]

def build():
    "The README's text and its images, {name: bytes}."
    images = {}
    parts = [p.strip() for c in load(NOTEBOOK)['cells'] for p in convert(c, images)]
    return HEADER + '\n\n'.join(p for p in parts if p) + '\n', images

def borrowed(cell):
    "Each `saved_output(notebook, call)` of a code cell, as (notebook, call)."
    if cell['cell_type'] != 'code': return []
    calls = [n for n in ast.walk(ast.parse(text(cell['source']))) if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'saved_output']
    return [tuple(ast.literal_eval(a) for a in n.args) for n in calls]

def shown(cells, call=''):
    "The last picture, table or text among the outputs of the cells whose source holds `call`, as `report.saved_output` takes it."
    kinds = 'image/png', 'text/html', 'text/markdown'
    data = [o['data'] for c in cells if call in text(c['source']) for o in c.get('outputs', []) if set(kinds) & set(o.get('data', {}))]
    kind = next((k for k in kinds if data and k in data[-1]), None)
    return kind and (kind, ''.join(text(data[-1][kind]).split()))

def outdated():
    "What index.ipynb shows of other notebooks and these show otherwise now."
    for cell in load(NOTEBOOK)['cells']:
        for name, call in borrowed(cell):
            if shown([cell]) != shown(load(NOTEBOOK.with_name(f'{name}.ipynb'))['cells'], call): yield f'nbs/index.ipynb shows an older output of {name} ({call})'

def stale(readme, images):
    "What differs on the disk from what the notebook gives."
    now = {p.name: p.read_bytes() for p in IMAGES.glob('index-*.png')}
    out = [] if README.exists() and README.read_text(encoding='utf-8') == readme else ['README.md']
    return out + [f'nbs/images/{n}' for n in sorted(now.keys() | images.keys()) if now.get(n) != images.get(n)]

def write(readme, images):
    "Write README.md and the images; images of former figures go."
    README.write_text(readme, encoding='utf-8')
    for old in IMAGES.glob('index-*.png'):
        if old.name not in images: old.unlink()
    if images: IMAGES.mkdir(exist_ok=True)
    for name, data in images.items(): (IMAGES/name).write_bytes(data)

if __name__ == '__main__':
    readme, images = build()
    if '--check' not in sys.argv: write(readme, images)
    elif old := [*outdated()]: sys.exit('; '.join(old) + '; run index.ipynb and save it, then python .ci/readme.py')
    elif differs := stale(readme, images): sys.exit(f"out of date: {', '.join(differs)}; run python .ci/readme.py")
