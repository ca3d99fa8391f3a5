"use strict";
// The review page: one picture at a time, a mark per tag, a CSV at the end. Nothing leaves the page.
const data = JSON.parse(document.getElementById("data").textContent);
const SUGGESTED = 24;
const find = (id) => document.getElementById(id);
const store = `tai-review-${data.review}`;
let at = 0;
let tag = 0;
let isSaved = true;
// by image: answers by class index ("1", "0" or "?"), and whether it was looked through
let marks = data.images.map(() => ({ answers: {}, done: false }));

function make(name, text, options = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  return Object.assign(element, options);
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(store));
    if (Array.isArray(kept) && kept.length === marks.length) marks = kept;
  } catch {
    // a browser that keeps nothing for files: marks live as long as the page
  }
  at = Math.max(0, marks.findIndex((mark) => !mark.done));
}

function keep() {
  isSaved = false;
  try {
    localStorage.setItem(store, JSON.stringify(marks));
  } catch {
    // as above
  }
}

const image = () => data.images[at];
const mark = () => marks[at];
const open = () => image().tags.filter((c) => !(c in mark().answers));
const done = () => marks.filter((each) => each.done).length;

function tell(text) {
  find("told").textContent = text;
}

function answer(value) {
  const c = image().tags[tag];
  if (c === undefined) return;
  mark().answers[c] = value;
  keep();
  tag = Math.min(tag + 1, image().tags.length - 1);
  const next = image().tags.findIndex((each) => !(each in mark().answers));
  if (next >= 0) tag = next;
  show();
}

function toggle(c) {
  if (mark().answers[c] === "1") delete mark().answers[c];
  else mark().answers[c] = "1";
  keep();
  show();
}

function finish() {
  if (open().length) {
    tag = image().tags.indexOf(open()[0]);
    show();
    tell(`Yes, no or can't tell: ${data.classes[open()[0]]}?`);
    return;
  }
  mark().done = true;
  keep();
  const next = marks.findIndex((each) => !each.done);
  move(next < 0 ? at : next);
  if (next < 0) {
    tell("All pictures are done. Save the marks.");
    find("save").focus();
  }
}

function move(to) {
  at = Math.min(Math.max(to, 0), data.images.length - 1);
  tag = 0;
  find("filter").value = "";
  show();
  tell("");
  find("picture").scrollIntoView({ block: "nearest" });
}

function showTags() {
  const rows = image().tags.map((c, place) => {
    const row = make("li", "", { className: place === tag ? "current" : "" });
    if (place === tag) row.setAttribute("aria-current", "true");
    row.append(make("span", data.classes[c], { className: "name" }));
    for (const [value, text] of [["1", "Yes"], ["0", "No"], ["?", "Can't tell"]]) {
      const button = make("button", text, { type: "button" });
      button.dataset.value = value;
      button.setAttribute("aria-pressed", String(mark().answers[c] === value));
      button.setAttribute("aria-label", `${text}: ${data.classes[c]}`);
      button.addEventListener("click", () => {
        tag = place;
        answer(value);
      });
      row.append(button);
    }
    return row;
  });
  find("tags").replaceChildren(...rows);
  find("untagged").hidden = rows.length > 0;
}

// classes that were not given: those added, then the likeliest, or what the filter finds
function others() {
  const given = new Set(image().tags);
  const wanted = find("filter").value.trim().toLowerCase();
  const rest = [...new Set([...image().order, ...data.classes.keys()])].filter((c) => !given.has(c));
  const added = rest.filter((c) => mark().answers[c] === "1");
  const fitting = rest.filter(
    (c) => !added.includes(c) && data.classes[c].toLowerCase().includes(wanted),
  );
  return [...added, ...fitting.slice(0, wanted ? 2 * SUGGESTED : SUGGESTED)];
}

function showOthers() {
  const chips = others().map((c, place) => {
    const number = place < 9 ? `${place + 1} ` : "";
    const chip = make("button", "", { type: "button" });
    chip.append(make("small", number), data.classes[c]);
    chip.dataset.c = c;
    chip.setAttribute("aria-pressed", String(mark().answers[c] === "1"));
    chip.addEventListener("click", () => toggle(c));
    return chip;
  });
  find("others").replaceChildren(...chips);
}

function show() {
  const left = data.images.length - done();
  find("left").textContent = left
    ? `${done()} done, ${left} left`
    : `All ${data.images.length} done`;
  find("progress").value = done();
  find("file").textContent = image().file;
  find("place").textContent = `Picture ${at + 1} of ${data.images.length}${mark().done ? ", done" : ""}`;
  const picture = find("picture");
  if (picture.getAttribute("src") !== image().picture) picture.src = image().picture;
  picture.alt = image().file;
  showTags();
  showOthers();
  find("back").disabled = at === 0;
  find("end").hidden = done() === 0;
}

function table() {
  const quote = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const lines = ["review,file,class,mark,tagged,stratum,weight"];
  data.images.forEach((each, place) => {
    if (!marks[place].done) return;
    const rows = Object.entries(marks[place].answers);
    for (const [c, value] of rows.length ? rows : [[-1, ""]]) {
      const tagged = c < 0 ? "" : Number(each.tags.includes(Number(c)));
      const label = c < 0 ? "" : data.classes[c];
      const cells = [quote(each.file), quote(label), value, tagged, each.stratum, each.weight];
      lines.push([data.review, ...cells].join(","));
    }
  });
  // the mark at its front lets spreadsheets read UTF-8
  return `\ufeff${lines.join("\r\n")}\r\n`;
}

function save() {
  if (!done()) {
    tell("No picture is done yet.");
    return;
  }
  const url = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
  const link = make("a", "", { href: url, download: "marks.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  isSaved = true;
  tell(`marks.csv holds ${done()} pictures.`);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isButton = event.target instanceof HTMLButtonElement;
  if (isButton && (event.key === "Enter" || event.key === " ")) return;
  if (event.target === find("filter")) {
    if (event.key === "Escape") find("filter").blur();
    if (event.key === "Enter") {
      const first = others().find((c) => mark().answers[c] !== "1");
      find("filter").value = "";
      if (first !== undefined) toggle(first);
      find("filter").blur();
    }
    return;
  }
  const last = Math.max(0, image().tags.length - 1);
  const actions = {
    y: () => answer("1"),
    n: () => answer("0"),
    u: () => answer("?"),
    arrowdown: () => { tag = Math.min(tag + 1, last); show(); },
    arrowup: () => { tag = Math.max(tag - 1, 0); show(); },
    enter: finish,
    arrowright: finish,
    backspace: () => move(at - 1),
    arrowleft: () => move(at - 1),
    "/": () => find("filter").focus(),
    s: save,
  };
  const chip = others()[Number(event.key) - 1];
  const action = /^[1-9]$/.test(event.key) && chip !== undefined
    ? () => toggle(chip)
    : actions[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

find("next").addEventListener("click", finish);
find("back").addEventListener("click", () => move(at - 1));
find("save").addEventListener("click", save);
find("filter").addEventListener("input", showOthers);
document.addEventListener("keydown", press);
window.addEventListener("beforeunload", (event) => {
  if (!isSaved && done()) event.preventDefault();
});
recall();
find("progress").max = data.images.length;
show();
find("work").hidden = false;
