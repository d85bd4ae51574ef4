"""The explorer in a real browser: headless Chromium opens JupyterLab and voila, types, clicks, presses keys, and looks at what the page shows.

    python .ci/browser.py FOLDER [PART...]    screenshots go to FOLDER; PART: lab, notebook, voila (all three when none is named), dark
    python .ci/browser.py picture             make nbs/images/explore.png and page.png anew
    python .ci/browser.py missing             say what a test needs that is not here; exit status 1 when it is something

A small world is drawn and two runs are trained for it, in temporary folders, as are all settings. Every wait ends, and so does every process.
"""
import contextlib, json, os, re, secrets, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT, WAIT = 900, 180  # seconds for everything, and for one thing to show up on a busy machine
# some machines let Chromium's own connections hang; none of them is needed here
FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--hide-scrollbars', '--force-device-scale-factor=1', '--lang=en']
SETTINGS = {'@jupyterlab/apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
            '@jupyterlab/notebook-extension/tracker': dict(windowingMode='none')}
HOSTILE = '<img src=x onerror="window.hacked=1"> <script>window.hacked=2</script> a red star <b>bold</b>'

def browser(): return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)

def missing():
    "What the test needs and this machine lacks."
    need = {'chromium': browser(), 'chromedriver': shutil.which('chromedriver'),
            **{m: find_spec(m) for m in ('selenium', 'jupyterlab', 'voila', 'ipywidgets')}}
    return [k for k, v in need.items() if not v]

def stop(process):
    "End a process that was started here, and what it started."
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, sig)
        with contextlib.suppress(subprocess.TimeoutExpired): process.wait(5); break
    with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)

@contextlib.contextmanager
def serving(command, home, ready, theme='light'):
    "A server on a free port with settings of its own; yields its port. `ready` is the address that answers when it is up."
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    for name, value in {**SETTINGS, '@jupyterlab/apputils-extension/themes': dict(theme=f'JupyterLab {theme.title()}')}.items():
        file = home/'settings'/f'{name}.jupyterlab-settings'
        file.parent.mkdir(parents=True, exist_ok=True); file.write_text(json.dumps(value))
    env = {**os.environ, 'HOME': str(home), 'JUPYTER_CONFIG_DIR': str(home/'config'), 'JUPYTER_DATA_DIR': str(home/'data'), 'JUPYTER_RUNTIME_DIR': str(home/'runtime'), 'JUPYTER_PREFER_ENV_PATH': '1',
           'JUPYTERLAB_SETTINGS_DIR': str(home/'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(home/'workspaces'), 'IPYTHONDIR': str(home/'ipython'), 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '2')}
    with open(home/'server.log', 'w') as log:
        process = subprocess.Popen([sys.executable, '-m', *(w.format(port=port) for w in command)], env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        until(lambda: answers(ready.format(port=port)) or process.poll() is not None, f'{command[0]} to start')
        if process.poll() is not None: raise AssertionError(f"{command[0]} ended:\n{(home/'server.log').read_text()[-3000:]}")
        yield port
    finally: stop(process)

def answers(address):
    "Whether a server answers there at all."
    try: return bool(urllib.request.urlopen(address, timeout=5))
    except urllib.error.HTTPError: return True
    except OSError: return False

def until(true, what, seconds=WAIT):
    "Wait until `true()` is, and return its value; an AssertionError that says for what when it never is."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true(): return value
        time.sleep(.1)
    raise AssertionError(f'waited {seconds} s for {what}')

@contextlib.contextmanager
def chromium(home, size=(1360, 1000)):
    "A browser with an empty profile."
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = browser()
    for flag in (*FLAGS, f'--user-data-dir={home/"profile"}', f'--window-size={size[0]},{size[1]}'): options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = Service(shutil.which('chromedriver'), popen_kw=dict(start_new_session=True), env={**os.environ, 'HOME': str(home)})
    driver = webdriver.Chrome(options, service)
    try:
        driver.set_page_load_timeout(WAIT); driver.set_script_timeout(WAIT)
        yield driver
    finally:
        with contextlib.suppress(Exception): driver.quit()
        stop(service.process)

# What a person does on the page, and what they see there. It is the same for JupyterLab and voila.
JS = '''const app = [...document.querySelectorAll('.mh-app')].pop(), all = (q, e) => [...(e || app).querySelectorAll(q)], seen = e => !!e && e.offsetParent !== null;
const runs = app ? all('.mh-run') : [], thumbs = i => all('.mh-thumb', runs[i]).filter(seen), lines = i => all('.mh-line', runs[i]).filter(seen), note = () => app.querySelector('.mh-note').textContent;
const shares = i => all('.mh-box', runs[i]).map(e => e.dataset.share).join(), label = i => (runs[i].querySelector('.mh-picture') || {}).ariaLabel || '';\n'''

class Page:
    "The explorer on a page that is open."
    def __init__(self, driver, folder, name): self.driver, self.folder, self.name, self.shots = driver, folder, name, 0
    def get(self, code): return self.driver.execute_script(JS + 'return ' + code)
    def wait(self, code, what, seconds=WAIT):
        from selenium.common.exceptions import JavascriptException
        def true():
            if self.driver.execute_script('return [...document.querySelectorAll(".jp-OutputArea-output[data-mime-type]")].some(e => /jupyter\\.(error|stderr)$/.test(e.dataset.mimeType) && e.innerText.includes("Traceback"))'): raise RuntimeError('a cell ended with an error')
            with contextlib.suppress(JavascriptException): return self.get(code)
        try: return until(true, what, seconds)
        except (AssertionError, RuntimeError) as e: self.shot('failed'); raise type(e)(f"{self.name}: {e}; the app says {self.get('app && note()')!r}") from None
    def check(self, code, what):
        if not self.get(code): self.shot('failed'); raise AssertionError(f"{self.name}: {what}: {self.get('app.innerText')[:2000]}")
    def shot(self, what):
        self.shots += 1
        self.driver.save_screenshot(str(self.folder/f'{self.name}-{self.shots:02d}-{what}.png'))
    def click(self, code):
        "Click an element as soon as it can be clicked."
        from selenium.common.exceptions import ElementNotInteractableException, ElementClickInterceptedException, JavascriptException, StaleElementReferenceException
        def done():
            with contextlib.suppress(ElementNotInteractableException, ElementClickInterceptedException, JavascriptException, StaleElementReferenceException):
                if e := self.get(code): e.click(); return True
        try: until(done, f'{code} to be clickable')
        except AssertionError as e: self.shot('failed'); raise AssertionError(f'{self.name}: {e}') from None
    def press(self, *keys):
        from selenium.webdriver import ActionChains
        ActionChains(self.driver).send_keys(*keys).perform()
    def note(self, said):
        "Wait for a new answer that says so."
        self.wait(f'note().includes({json.dumps(said)}) && !app.querySelector(".mh-spin")', f'the app to say {said!r}')
    def enter(self, text, said='Images for the sentence'):
        "Put a sentence in the field and press Enter: as keys, or pasted where it has letters that a key cannot send or many of them."
        from selenium.webdriver import Keys
        self.driver.execute_script(JS + "app.querySelector('.mh-note').textContent = ''; const t = app.querySelector('input[type=text]'); t.focus(); t.select()")
        if len(text) > 200 or any(ord(c) > 0xffff for c in text): self.driver.execute_script("document.execCommand('insertText', false, arguments[0])", text)
        else: self.press(text)
        self.press(Keys.ENTER)
        self.note(said)

def timed(page, text):
    "Milliseconds from the press of Enter to the new results on the page."
    page.driver.execute_script(JS + """const t = app.querySelector('input[type=text]'); t.focus(); t.select(); window.took = null; let start = 0;
        t.addEventListener('keydown', e => { if (e.key == 'Enter') start = performance.now(); }, {capture: true, once: false});
        const old = thumbs(0).concat(runs.length > 1 ? thumbs(1) : []).map(b => b.title).join();
        const watch = new MutationObserver(() => { if (start && note().includes(' ms.') && thumbs(0).concat(runs.length > 1 ? thumbs(1) : []).map(b => b.title).join() != old) { window.took = performance.now() - start; watch.disconnect(); } });
        watch.observe(app, {subtree: true, childList: true, attributes: true, characterData: true});""")
    page.enter(text)
    page.wait('window.took !== null', 'other results')
    return page.get('window.took')

def look_around(page, runs, expected):
    "What a person tries, with the mouse and with keys; `expected`: what Python says should be seen."
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import Select
    d = page.driver
    one = lambda code: page.get(code)
    # it is there
    page.wait(f'app && runs.length == {runs} && runs.every((_, i) => thumbs(i).length >= 10)', 'the explorer with its thumbnails')
    page.note(' ms.'); page.shot('start')
    page.check('thumbs(0).every(b => getComputedStyle(b).backgroundImage.startsWith(\'url("data:image/\'))', 'every thumbnail has a picture')
    page.check('app.scrollWidth <= app.clientWidth + 1 && all(".mh-thumb,.mh-line").filter(seen).every(b => { const r = document.createRange(); r.selectNodeContents(b); return r.getBoundingClientRect().width <= b.clientWidth + 1; })', 'nothing is cut off')
    page.check('app.innerText.includes("demonstration")', 'it is labelled a demonstration')
    # text from the data is shown as text: the first caption and the first name are markup
    page.check(f'app.querySelector("input[type=text]").value == {json.dumps(HOSTILE)}', 'the caption is in the field as it is')
    harmless(page)
    # a sentence
    page.enter('a red star above the sea'); page.shot('sentence')
    page.check('runs.every((_, i) => thumbs(i).length == 10 && thumbs(i).every((b, j) => /^\\d+ · -?\\d?\\.\\d\\d$/.test(b.innerText)))', 'ten thumbnails with rank and score, unmarked')
    page.check('runs.every((_, i) => thumbs(i).map(b => +b.innerText.split("·")[1]).every((s, j, all) => !j || s <= all[j - 1]))', 'scores fall')
    # a result
    page.click('thumbs(0)[2]')
    page.wait('label(0).startsWith(thumbs(0)[2].title.split(":")[0] + ",") && thumbs(0)[2].classList.contains("mh-chosen")', 'the third result to be looked at')
    page.wait('!app.querySelector(".mh-spin") && runs.every((_, i) => label(i).startsWith(thumbs(0)[2].title.split(":")[0] + ",") && lines(i).length == 10 && all(".mh-bars", runs[i]).length > 0)', 'both runs show it, with captions and concepts')
    page.shot('image')
    # its heads, by mouse and by keys
    mean = one('shares(0)')
    page.click('all(".mh-heads button", runs[0]).find(b => b.innerText.trim() == "2")')
    page.wait('label(0).includes("head 2:")', 'head 2'); second = one('shares(0)')
    if second == mean: raise AssertionError(f'{page.name}: the picture of head 2 is that of the mean')
    page.shot('head')
    page.press(Keys.TAB, Keys.ENTER)
    page.wait('label(0).includes("head 3:")', 'head 3 by Tab and Enter')
    if one('shares(0)') in (mean, second): raise AssertionError(f'{page.name}: the picture of head 3 is an earlier one')
    # a caption
    said = one('lines(0)[0].innerText.replace(/^\\S+ \\d+ · \\S+\\s+/, "")')
    page.click('lines(0)[0]')
    page.wait(f'app.querySelector("input[type=text]").value == {json.dumps(said)} && !app.querySelector(".mh-spin") && thumbs(0).some(b => b.innerText.startsWith("✓"))', 'the caption to be asked with, and its image ticked')
    # stepping, by mouse and by keys
    page.click('all("button").find(b => b.title == "Next")'); page.wait('app.querySelector(".mh-where").innerText.startsWith("2 of")', 'the second caption')
    one('app.querySelector(".noUi-handle")').send_keys(Keys.ARROW_RIGHT); page.wait('app.querySelector(".mh-where").innerText.startsWith("3 of")', 'the third caption by an arrow key')
    # failures
    Select(one('all("select")[1]')).select_by_visible_text(expected['filter'])
    page.wait(f'app.querySelector(".mh-where").innerText == "1 of {expected["missed"]:,} captions"', f'{expected["missed"]} captions to be kept')
    page.wait('!app.querySelector(".mh-spin") && thumbs(0).slice(0, 5).every(b => b.innerText.startsWith("✗"))', 'five wrong images'); page.shot('failures')
    Select(one('all("select")[0]')).select_by_visible_text('images')
    page.wait('app.querySelector(".mh-where").innerText.endsWith(" images") && !app.querySelector(".mh-spin")', 'images to be stepped through'); page.shot('images')
    # nonsense
    page.click('all("button").find(b => b.innerText.trim() == "Search")'); page.note('the sentence is empty')
    page.enter('🙂 🙂', 'no words'); page.enter('qwxzv jjkkq', 'none of its words')
    page.enter('red star ' * 5000, 'letters'); page.enter('word ' * 900, 'words'); page.enter(HOSTILE); harmless(page); page.shot('nonsense')
    page.enter('two blue discs'); page.check('thumbs(0).length == 10', 'it still answers')
    # what is shown while an answer takes long: nothing at first, then the spinner
    d.execute_script(JS + "const e = document.createElement('div'); e.className = 'mh-busy mh-trial'; app.append(e); window.early = getComputedStyle(e).opacity")
    page.wait('window.early == "0" && getComputedStyle(app.querySelector(".mh-trial")).opacity == "1"', 'the spinner to appear', 20)
    d.execute_script(JS + "app.querySelector('.mh-trial').remove()")
    keyboard(page)

def harmless(page):
    "Nothing that was text has become markup."
    page.check('window.hacked === undefined && !document.querySelector("img[src=x]") && ![...document.querySelectorAll(".mh-app script, .mh-app b")].length', 'text is shown as text')

def keyboard(page):
    "Tab goes from the sentence through the bars to the results in the order in which they are seen; Enter presses."
    from selenium.webdriver import Keys
    page.driver.execute_script(JS + "app.querySelector('input[type=text]').focus()")
    order = []
    for _ in range(60):
        page.press(Keys.TAB)
        order.append(page.get('(e => e.classList.contains("mh-thumb") ? "thumb" : e.classList.contains("mh-line") ? "line" : e.classList.contains("noUi-handle") ? "slider" : e.closest(".mh-heads") ? "head" : e.tagName == "SELECT" ? "select" : e.tagName == "INPUT" ? "number" : e.title)(document.activeElement)'))
        if order.count('thumb') == 2: break
    want = ['Find the images for the sentence', 'select', 'select', 'number', 'Previous', 'slider', 'Next', 'thumb', 'thumb']
    if order != want: raise AssertionError(f'{page.name}: Tab goes {order}')
    page.press(Keys.ENTER)
    page.wait('thumbs(0)[1].classList.contains("mh-chosen") && document.activeElement == thumbs(0)[1]', 'the second result by Enter, which keeps the focus')
    page.press(Keys.TAB, Keys.SPACE)
    page.wait('thumbs(0)[2].classList.contains("mh-chosen") && !app.querySelector(".mh-spin")', 'the third result by the space bar'); page.shot('keys')

def quiet(page, also=()):
    "The console has no errors."
    known = ('favicon', *also)
    bad = [f"{e['level']}: {e['message'][:300]}" for e in page.driver.get_log('browser') if e['level'] == 'SEVERE' and not any(k in e['message'] for k in known)]
    if bad: raise AssertionError(f'{page.name}: the console says\n' + '\n'.join(bad))

def prepare(folder, hostile=True, epochs=2, n_train=400, n_dev=40, n_test=1000):
    "A small world whose first test caption and name are markup (`hostile`), two runs trained on it, and a page that shows both; what should be seen there."
    import torch
    from mhcvse.config import Config
    from mhcvse.explore import open_source, write_page
    from mhcvse.world import world_store
    from mhcvse.store import write_store
    from mhcvse.task import Task
    from mhcvse.train import fit
    torch.set_num_threads(1)
    plain = world_store(folder/'plain.h5', n_train=n_train, n_dev=n_dev, n_test=n_test)
    f, items = plain.file, plain.items
    captions, names, first = list(items['captions']), list(items['names']), items['split'].index('test')
    if hostile: captions[items['caption_image'].tolist().index(first)], names[first] = HOSTILE, '<b onclick="window.hacked=3">name</b>'
    store = write_store(folder/'world.h5', f['features'][:], captions, items['caption_image'], items['split'], names, **{k: f[k][:] for k in ('n_regions', 'boxes', 'sizes', 'pixels')}, name='scenes-0', kind='demonstration')
    for preset in ('mhcvse', 'cvse'):
        cfg = Config.preset(preset, 'small').override({'train.epochs': epochs, 'train.device': 'cpu'})
        (folder/'runs'/preset).mkdir(parents=True)
        fit(cfg, Task(store, cfg), folder/'runs'/preset, show=False)
    runs = [folder/'runs'/preset for preset in ('mhcvse', 'cvse')]
    (folder/'page').mkdir()
    write_page(folder/'page'/'explorer.ipynb', *runs, store=store.path, names=['MH-CVSE', 'CVSE'])
    return dict(filter='missed by MH-CVSE', missed=int((open_source(runs[0], store=store).ranks('captions') > 5).sum()))

LAB = ['jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', '--ServerApp.port={port}', '--ServerApp.port_retries=0']
def run_cells(page, run):
    "Run cells when the kernel says that it is there, and again when JupyterLab forgot them (it does, when the kernel connects anew just then), until the explorer is seen."
    first = 'document.querySelector(".jp-Notebook .jp-CodeCell .jp-InputPrompt").innerText'
    for _ in range(3):
        page.wait('!!document.querySelector(".jp-Notebook .jp-CodeCell .cm-content") && [...document.querySelectorAll(".jp-StatusBar-TextItem")].some(e => e.innerText.endsWith("| Idle"))', 'the notebook and its kernel')
        run()
        with contextlib.suppress(AssertionError):
            page.wait(f'/[*0-9]/.test({first})', 'the first cell to begin', 30)
            page.wait(f'!!app && thumbs(0).length > 0 || !/[*0-9]/.test({first})', 'the explorer')
            if page.get('!!app'): return
    raise AssertionError(f'{page.name}: the cells were forgotten three times')

def lab(driver, data, shots, expected, theme='light', name='lab'):
    "JupyterLab, the page's one cell run by Shift+Enter. In the light theme answers are timed."
    from selenium.webdriver import ActionChains, Keys
    home, token = data/name, secrets.token_hex(16)
    with serving([*LAB, f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={data/"page"}'], home, 'http://127.0.0.1:{port}/api', theme) as port:
        page = Page(driver, shots, name)
        driver.get(f'http://127.0.0.1:{port}/lab/tree/explorer.ipynb?token={token}&reset')
        def by_keys():
            page.click('document.querySelector(".jp-Notebook .jp-CodeCell .cm-content")')
            ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
        run_cells(page, by_keys)
        look_around(page, 2, expected)
        if theme == 'light': report_times(page)
        quiet(page)

def notebook(driver, data, shots, expected):
    "JupyterLab, the whole of 61_explore run from its menu."
    home, token = data/'notebook', secrets.token_hex(16)
    shutil.copytree(ROOT/'nbs', data/'nbs', ignore=lambda d, names: [n for n in names if n not in ('61_explore.ipynb', 'images') and Path(d).name == 'nbs'])
    with serving([*LAB, f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={data/"nbs"}'], home, 'http://127.0.0.1:{port}/api') as port:
        page = Page(driver, shots, 'notebook')
        driver.get(f'http://127.0.0.1:{port}/lab/tree/61_explore.ipynb?token={token}&reset')
        def by_menu():
            page.click('[...document.querySelectorAll(".lm-MenuBar-item")].find(e => e.innerText.trim() == "Run")')
            page.click('document.querySelector("[data-command=\'runmenu:run-all\']")')
        run_cells(page, by_menu)
        page.wait('[...document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputPrompt")].every(e => /\\d/.test(e.innerText) || !e.closest(".jp-CodeCell").querySelector(".cm-content").innerText.trim())', 'every cell to have run')
        driver.execute_script(JS + 'app.scrollIntoView()')
        page.enter('a red star above the sea'); page.shot('sentence')
        page.click('thumbs(0)[1]')
        page.note('A look at'); page.check('thumbs(0)[1].classList.contains("mh-chosen")', 'the second result is looked at'); mean = page.get('shares(0)')
        page.click('all(".mh-heads button", runs[0]).find(b => b.innerText.trim() == "1")')
        page.wait(f'label(0).includes("head 1:") && shares(0) != {json.dumps(mean)}', 'head 1'); page.shot('head')
        quiet(page)

VOILA = ['voila', 'explorer.ipynb', '--no-browser', '--Voila.ip=127.0.0.1', '--port={port}']
def voila(driver, data, shots, expected):
    "voila, the same page with nothing around it, in the dark theme."
    with serving([*VOILA, '--theme=dark', f'--Voila.root_dir={data/"page"}'], data/'page', 'http://127.0.0.1:{port}/nothing') as port:
        page = Page(driver, shots, 'voila')
        driver.get(f'http://127.0.0.1:{port}/')
        look_around(page, 2, expected)
        page.check('!document.querySelector(".jp-Cell-inputArea, .jp-InputArea")', 'no code is seen')
        quiet(page, ['fontawesome'])  # voila's own page asks a network for it

def report_times(page):
    "How long answers take on this machine, now: from Enter to the results on the page, and the share of it that Python says it took."
    took = []
    for text in ('a big blue disc', 'two green rings over the water', 'something yellow on the left', 'a small striped heart', 'three things in the snow', 'a black cross under a moon', 'a purple square beside a star'):
        took.append((timed(page, text), int(re.search(r'(\d+) ms\.', page.get('note()'))[1])))
    from statistics import median
    print(f'| 1,000 images, two runs, {len(took)} sentences: {median(t for t, _ in took):.0f} ms from Enter to the results (at most {max(t for t, _ in took):.0f}), of which Python {median(t for _, t in took):.0f} ms')

def picture():
    "Make nbs/images/explore.png and page.png from two runs that are a little better trained."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        os.environ.setdefault('MPLCONFIGDIR', f'{data}/mpl')
        prepare(Path(data), False, 8, 1000, 100, 200)
        take_picture(Path(data), ROOT/'nbs'/'images'/'explore.png')
        take_page(Path(data), ROOT/'nbs'/'images'/'page.png')

def small_file(png, file):
    "Save a screenshot with 256 colours."
    import io
    from PIL import Image
    Image.open(io.BytesIO(png)).convert('RGB').quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, optimize=True)

def take_page(data, file):
    "The beginning of what `mhcvse-report` makes of both runs."
    from mhcvse.page import main as report
    from mhcvse.reproduce import test_run
    from mhcvse.store import Store
    from mhcvse.train import load_run
    store, runs = Store(data/'world.h5'), [data/'runs'/preset for preset in ('mhcvse', 'cvse')]
    for r in runs: test_run(load_run(r, store), data=store.name, preset=r.name, size='small')
    if report([*map(str, runs), '--store', str(store.path), '--out', str(data/'page.html')]): raise AssertionError('mhcvse-report wrote no page')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, chromium(Path(home), (1000, 1300)) as driver:
        driver.get((data/'page.html').as_uri()); time.sleep(1)
        small_file(driver.get_screenshot_as_png(), file)

def take_picture(data, file):
    "The app on a page of voila, without the page, at a caption that only one of the runs gets right."
    from selenium.webdriver.support.ui import Select
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, chromium(Path(home), (1180, 1400)) as driver:
        with serving([*VOILA, '--theme=light', f'--Voila.root_dir={data/"page"}'], data/'page', 'http://127.0.0.1:{port}/nothing') as port:
            page = Page(driver, data, 'picture')
            driver.get(f'http://127.0.0.1:{port}/')
            page.wait('!!app && thumbs(0).length > 0', 'the explorer')
            Select(page.get('all("select")[1]')).select_by_visible_text('missed by MH-CVSE only')
            page.wait('thumbs(0)[0].innerText.startsWith("✗") && thumbs(1).some(b => b.innerText.startsWith("✓"))', 'a caption that one run misses')
            page.note('Images for the sentence'); time.sleep(1)  # nothing moves any more
            page.click('thumbs(1).find(b => b.innerText.startsWith("✓"))'); page.note('A look at')
            page.click('all(".mh-heads button", runs[0]).find(b => b.innerText.trim() == "3")'); page.wait('label(0).includes("head 3:")', 'head 3')
            page.driver.execute_script('document.activeElement.blur()'); time.sleep(1)
            small_file(page.get('app').screenshot_as_png, file)

PARTS = dict(lab=lab, notebook=notebook, voila=voila, dark=lambda *a: lab(*a, theme='dark', name='dark'))

def late(*_): raise TimeoutError(f'not done after {LIMIT} s')

def main(folder, *parts):
    "Run the parts; exit status 0 when all of them pass."
    if lacking := missing(): sys.exit(f"not tried: {', '.join(lacking)} not here")
    shots = Path(folder).resolve(); shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        os.environ.setdefault('MPLCONFIGDIR', f'{data}/mpl')
        expected = prepare(Path(data))
        for name in parts or ('lab', 'notebook', 'voila'):
            start = time.monotonic()
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, chromium(Path(home)) as driver: PARTS[name](driver, Path(data), shots, expected)
            print(f'| {name}: {time.monotonic() - start:.0f} s, {len(list(shots.glob(name + "-*.png")))} screenshots', flush=True)

if __name__ == '__main__':
    if len(sys.argv) < 2 or any(p not in PARTS for p in sys.argv[2:]): sys.exit(__doc__)
    if sys.argv[1] == 'missing': print('not here:', ', '.join(missing()) or 'nothing'); sys.exit(bool(missing()))
    sys.path.insert(0, str(ROOT)); os.environ['NO_PROXY'] = os.environ['no_proxy'] = '127.0.0.1,localhost'
    signal.signal(signal.SIGALRM, late); signal.alarm(LIMIT)
    picture() if sys.argv[1] == 'picture' else main(*sys.argv[1:])
