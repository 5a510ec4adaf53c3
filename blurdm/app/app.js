// Sends the photo, reads what happens to it line by line, and shows results as they come.
const part = (selector) => document.querySelector(selector);
const form = part("form"), file = part(".drop input"), drop = part(".drop"), bar = part("progress");

const say = (text) => { part(".status").textContent = text; };
const forget = () => { part(".error").replaceChildren(); part(".error").hidden = true; };
const complain = (text) => {
  part(".error").append(Object.assign(document.createElement("div"), { textContent: text }));
  part(".error").hidden = false;
};

const take = (event) => {
  if (event.error) complain(event.error);
  if (event.result) part(".results").insertAdjacentHTML("beforeend", event.result);
  if (event.text) { bar.value = event.progress; say(event.text); }
};

const read = async (stream) => {
  let left = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (left + text).split("\n");
    left = lines.pop();
    lines.forEach((line) => take(JSON.parse(line)));
  }
};

const restore = async (photo) => {
  if (form.classList.contains("busy")) return;
  forget();
  if (photo.size > file.dataset.most) return complain(`${photo.name}: too large for this page; use 'blurdm deblur'.`);
  form.classList.add("busy");
  part(".results").replaceChildren();
  bar.value = 0;
  bar.hidden = false;
  say(`sending ${photo.name}`);
  try {
    const chosen = [...document.querySelectorAll("[name=model]:checked")].map((box) => ["model", box.value]);
    const query = new URLSearchParams([["name", photo.name], ...chosen]);
    const answer = await fetch(`restore?${query}`, { method: "POST", body: photo });
    if (answer.ok) await read(answer.body);
    else complain((await answer.json()).error);
  } catch (error) {
    complain(`The connection was lost (${error.message}). Is blurdm app still running?`);
  }
  bar.hidden = true;
  say(part(".results").children.length ? `${photo.name}: done` : `${photo.name}: not restored`);
  form.classList.remove("busy");
};

file.addEventListener("change", () => { if (file.files.length) restore(file.files[0]); file.value = ""; });
// A photo that misses the field would otherwise replace the page.
document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const photos = event.dataTransfer.files;
  if (photos.length > 1) { forget(); complain("One photo at a time; 'blurdm deblur FOLDER' restores many."); }
  else if (photos.length) restore(photos[0]);
});
// Pictures of several models move together, so that the same place is compared.
document.addEventListener("input", (event) => {
  if (!event.isTrusted || !event.target.closest(".slider")) return;
  for (const other of document.querySelectorAll(".slider input")) {
    if (other === event.target) continue;
    other.value = event.target.value;
    other.dispatchEvent(new Event("input", { bubbles: true }));
  }
});
