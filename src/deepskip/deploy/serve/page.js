// A picture goes to the server as it is; every click asks again. Nothing is kept, here or there.
const $ = id => document.getElementById(id);
const make = (tag, kind, text) => {
  const one = document.createElement(tag);
  if (kind) one.className = kind;
  if (text !== undefined) one.textContent = text;
  return one;
};
const percent = share => {
  const value = 100 * share;
  return value > 99.95 && value < 100 ? '> 99.9 %' : value < .05 && value > 0 ? '< 0.1 %' : `${value.toFixed(value < 9.95 ? 1 : 0)} %`;
};
const count = value => value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e3 ? `${Math.round(value / 1e3)}k` : `${value}`;

const WAYS = {
  identity: 'what comes goes past it as it is',
  projection: 'it changes the dimensions, and so does what goes past it',
  pad: 'it changes the dimensions, and what goes past it is padded with zeros',
  none: 'nothing goes past it',
};

let token = sessionStorage.getItem('token');
let model;              // what GET /model says
let file;               // the picture, as it was dropped
let seen;               // the picture as the network sees it: an image
let shown;              // the last answer
let asking;             // the question under way
const cut = new Set();
const rows = new Map();   // a block's name → its line in the stream
const bars = new Map();   // a class → its line in the answer

async function ask(path, options = {}) {
  for (;;) {
    const headers = token ? {Authorization: `Bearer ${token}`} : {};
    const answer = await fetch(path, {...options, headers: {...headers, ...options.headers}});
    if (answer.ok) return answer.json();
    if (answer.status === 401) {
      token = await wanted();
      sessionStorage.setItem('token', token);
      continue;
    }
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.detail || `The server answers ${answer.status}.`);
  }
}

function wanted() {
  const door = $('door'), field = $('token');
  field.value = '';
  if (!door.open) door.showModal();
  return new Promise(resolve => {
    const enter = () => { if (field.value) { door.close(); resolve(field.value); } };
    $('enter').onclick = enter;
    field.onkeydown = event => { if (event.key === 'Enter') enter(); };
    door.oncancel = event => event.preventDefault();
  });
}

// --- the picture ---

function take(one) {
  if (!one) return;
  file = one;
  look();
}

async function look() {
  if (!file || !model) return;  // begin() asks once the model is known
  asking?.abort();
  const mine = asking = new AbortController();
  const query = new URLSearchParams();
  for (const block of cut) query.append('cut', block);
  const at = place(Number($('depth').value));
  if (at) query.append('at', at);
  $('frame').classList.add('busy');
  try {
    const answer = await ask(`look?${query}`, {
      method: 'POST', body: file, signal: mine.signal,
      headers: {'Content-Type': file.type || 'application/octet-stream'},
    });
    const image = new Image();
    image.src = answer.seen;
    await image.decode();
    if (mine !== asking) return;
    [seen, shown] = [image, answer];
    trouble();
    show();
  } catch (error) {
    if (mine === asking && error.name !== 'AbortError') trouble(error.message);
  } finally {
    if (mine === asking) $('frame').classList.remove('busy');
  }
}

function trouble(text) {
  $('trouble').hidden = !text;
  $('trouble').textContent = text || '';
}

function show() {
  $('frame').classList.remove('empty');
  $('looking').hidden = false;
  paint();
  answer();
  stream();
}

function paint() {
  const canvas = $('canvas'), side = 448 * Math.ceil(seen.width / 448), pen = canvas.getContext('2d');
  canvas.width = canvas.height = side;
  pen.imageSmoothingEnabled = seen.width > 64;  // of a few pixels each is worth seeing
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(seen, 0, 0, side, side);
  const most = Math.max(...shown.map.flat().map(Number));
  const blind = !(most > 0);
  if ($('lit').checked && !blind) {
    pen.imageSmoothingEnabled = true;
    pen.drawImage(shadow(shown.map, most), 0, 0, side, side);
  }
  $('where').textContent = blind ? `nowhere, ${spot(shown.at)}` : spot(shown.at);
  canvas.setAttribute('aria-label', `The picture as the network sees it, called ${shown.class}`);
}

// What the network does not look at lies in the dark: the picture keeps its own colours.
function shadow(map, most) {
  const canvas = document.createElement('canvas');
  canvas.height = map.length;
  canvas.width = map[0].length;
  const pen = canvas.getContext('2d'), dark = pen.createImageData(canvas.width, canvas.height);
  map.flat().forEach((value, i) => { dark.data[4 * i + 3] = 205 * (1 - Math.max(0, value || 0) / most) ** 1.2; });
  pen.putImageData(dark, 0, 0);
  return canvas;
}

const spot = at => rows.has(at) ? `after ${at}` : 'before the head';
const place = i => i < model.blocks.length ? model.blocks[i].block : null;

// --- the answer ---

function answer() {
  const {top} = shown, before = top.reduce((best, one) => one.intact > best.intact ? one : best);
  const some = cut.size > 0;
  $('name').textContent = shown.class;
  const verdict = $('verdict');
  verdict.replaceChildren(make('b', '', percent(shown.probability)));
  if (some) {
    const blocks = `${cut.size} of ${model.blocks.length} blocks cut`;
    if (before.class === shown.class) verdict.append(` with ${blocks}; ${percent(before.intact)} with all.`);
    else verdict.append(` with ${blocks}; `, make('span', 'changed', `it was ${before.class}`), `, ${percent(before.intact)}.`);
  } else verdict.append(' sure.');
  $('brief').textContent = `${shown.class} ${percent(shown.probability)}`;
  $('key').hidden = !some;
  const listed = [...top].sort((a, b) => b.intact - a.intact), list = $('classes');
  for (const name of bars.keys()) if (!listed.some(one => one.class === name)) { bars.get(name).remove(); bars.delete(name); }
  for (const one of listed) {
    let line = bars.get(one.class);
    if (!line) {
      line = make('li');
      const track = make('span', 'track');
      track.append(make('i', 'now'), make('i', 'intact'));
      line.append(make('b', '', one.class), make('span', 'value'), track);
      bars.set(one.class, line);
    }
    list.append(line);
    line.classList.toggle('best', one.class === shown.class);
    line.querySelector('.value').textContent = percent(one.probability);
    const wide = (kind, share) => { line.querySelector(kind).style.width = `${100 * share}%`; };
    requestAnimationFrame(() => { wide('.now', one.probability); wide('.intact', some ? one.intact : one.probability); });
    line.querySelector('.intact').hidden = !some;
  }
}

// --- the stream ---

function build() {
  const list = $('blocks');
  const first = make('li', 'end first');
  first.append(make('span', '', 'the picture, through the stem'), make('span', '', model.residual ? 'adds' : ''));
  list.replaceChildren(first);
  list.classList.toggle('many', model.blocks.length > 20);
  let stage;
  for (const [i, block] of model.blocks.entries()) {
    if (block.stage !== stage) {
      stage = block.stage;
      list.append(make('li', 'stage', `${stage}: ${block.shape[0]} channels, ${block.shape[1]} × ${block.shape[2]}`));
    }
    const line = make('li', block.shortcut), button = make('button');
    button.type = 'button';
    button.disabled = !block.can_be_cut;
    button.tabIndex = i ? -1 : 0;
    button.title = `${block.block}: ${WAYS[block.shortcut]}`;
    const branch = make('span', 'branch'), adds = make('span', 'adds');
    branch.ariaHidden = adds.ariaHidden = 'true';
    adds.append(make('i'));
    button.append(branch, make('span', 'called', block.block), adds, make('span', 'much'));
    button.setAttribute('aria-pressed', 'false');
    button.addEventListener('click', () => toggle(block.block));
    line.append(button);
    list.append(line);
    rows.set(block.block, line);
  }
  list.append(make('li', 'end last', 'the head: an average, and the classes'));
  list.addEventListener('keydown', walk);
}

function stream() {
  for (const block of shown.blocks) {
    const line = rows.get(block.block), bar = line.querySelector('.adds i'), much = line.querySelector('.much');
    const {branch_rms: added, shortcut_rms: past} = block;
    const share = added === null ? null : model.residual ? added / ((added + past) || 1) : null;
    bar.classList.toggle('there', share !== null);
    bar.style.width = `${100 * (share ?? 0)}%`;
    much.textContent = share === null ? '' : `${Math.round(100 * share)} %`;
    line.classList.toggle('eye', block.block === shown.at);
  }
}

function toggle(block) {
  if (!cut.delete(block)) cut.add(block);
  pressed();
  look();
}

function pressed() {
  for (const [name, line] of rows) line.firstChild.setAttribute('aria-pressed', String(cut.has(name)));
  $('heal').disabled = !cut.size;
}

function heal() {
  if (!cut.size) return;
  cut.clear();
  pressed();
  look();
}

function walk(event) {
  const all = [...$('blocks').querySelectorAll('button:enabled')], i = all.indexOf(document.activeElement);
  const to = {ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: all.length - 1}[event.key];
  if (i < 0 || to === undefined) return;
  event.preventDefault();
  const next = all[Math.min(Math.max(to, 0), all.length - 1)];
  all[i].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// --- beginning ---

async function begin() {
  model = await ask('model');
  const [channels, side] = model.input;
  document.title = `${model.name} – deepskip`;
  $('title').textContent = `What does ${model.name} see?`;
  $('facts').textContent = `${model.layers} layers, ${count(model.params)} parameters, ${model.classes.length} classes, ` +
    `${side} × ${side} ${channels === 1 ? 'grey ' : ''}pixels`;
  if (!model.residual) $('stream').textContent = 'The blocks';
  $('hint').textContent = model.residual
    ? 'Every block adds to what comes down the line. Cut one, and see what the network misses.'
    : 'A plain net: what comes down goes through every block, and nothing goes past. Cut one, and see what happens.';
  const depth = $('depth'), own = model.blocks.findIndex(one => one.block === model.last);
  depth.max = own < 0 ? model.blocks.length : model.blocks.length - 1;
  depth.value = depth.max;
  build();
  $('blocks').querySelector('button:enabled')?.setAttribute('tabindex', '0');
  look();
}

let slow;
$('depth').addEventListener('input', () => {
  $('where').textContent = spot(place(Number($('depth').value)));
  clearTimeout(slow);
  slow = setTimeout(look, 120);
});
$('lit').addEventListener('change', paint);
$('heal').addEventListener('click', heal);
$('file').addEventListener('change', event => { take(event.target.files[0]); event.target.value = ''; });
addEventListener('paste', event => take([...event.clipboardData.files].find(one => one.type.startsWith('image/'))));
addEventListener('keydown', event => { if (event.key === 'Escape' && !$('door').open) heal(); });
for (const kind of ['dragover', 'dragleave', 'drop']) {
  addEventListener(kind, event => {
    event.preventDefault();
    $('frame').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') take(event.dataTransfer.files[0]);
  });
}
begin().catch(error => trouble(error.message));
