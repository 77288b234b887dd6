// Drop, paste, choose and crop the pictures of the search form. Without this script, the form's file fields are enough.
"use strict";

const JPEG_QUALITY = 0.95;
const MIN_CROP = 8; // pixels of the picture
const KEY_STEP = 0.02; // of the picture's width and height

// One slot of the form: its file field, the picture as it was chosen, and the part of it that is uploaded.
class Slot {
  constructor(element) {
    this.element = element;
    this.input = element.querySelector("input[type=file]");
    this.label = element.querySelector("label").textContent;
    this.bitmap = null;
    this.file = null;
    this.crop = null;
    this.canvas = this.build();
    this.input.addEventListener("change", () => this.input.files[0] ? this.choose(this.input.files[0]) : this.clear());
  }

  build() {
    this.element.classList.add("is-live");
    const canvas = document.createElement("canvas");
    canvas.hidden = true;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${this.label} picture. Arrow keys move the crop, with Shift they resize it, Escape shows the whole picture.`);
    canvas.addEventListener("pointerdown", (event) => this.startDrag(event));
    canvas.addEventListener("keydown", (event) => this.moveByKey(event));
    const tools = document.createElement("div");
    tools.className = "slot-tools";
    tools.hidden = true;
    this.whole = this.button("Whole picture", () => this.setCrop(null));
    this.whole.hidden = true;
    tools.append(this.whole, this.button("Remove", () => { this.input.value = ""; this.clear(); this.input.focus(); }));
    this.tools = tools;
    this.element.append(canvas, tools);
    return canvas;
  }

  button(text, action) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small quiet";
    button.textContent = text;
    button.setAttribute("aria-label", `${text}: ${this.label}`);
    button.addEventListener("click", action);
    return button;
  }

  async choose(file) {
    this.file = file;
    this.put(file);
    try {
      this.bitmap = await createImageBitmap(file);
    } catch {
      this.bitmap = null; // the browser cannot show it; the service may still decode it
    }
    if (this.file !== file) return;
    this.element.classList.add("is-filled");
    this.canvas.hidden = this.bitmap === null;
    this.tools.hidden = false;
    this.crop = null;
    this.whole.hidden = true;
    if (this.bitmap) {
      const scale = Math.min(1, 640 / Math.max(this.bitmap.width, this.bitmap.height));
      this.canvas.width = Math.max(1, Math.round(this.bitmap.width * scale));
      this.canvas.height = Math.max(1, Math.round(this.bitmap.height * scale));
      this.draw();
    }
  }

  clear() {
    this.bitmap = this.file = this.crop = null;
    this.canvas.hidden = this.tools.hidden = true;
    this.element.classList.remove("is-filled");
  }

  put(file) {
    const transfer = new DataTransfer();
    transfer.items.add(file);
    this.input.files = transfer.files;
  }

  draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.drawImage(this.bitmap, 0, 0, width, height);
    if (!this.crop) return;
    const [x, y, w, h] = [this.crop.x * width, this.crop.y * height, this.crop.width * width, this.crop.height * height];
    context.fillStyle = "rgba(10, 14, 22, 0.6)";
    context.beginPath();
    context.rect(0, 0, width, height);
    context.rect(x, y, w, h);
    context.fill("evenodd");
    context.lineWidth = Math.max(2, width / 100);
    context.strokeStyle = "#ffffff";
    context.strokeRect(x, y, w, h);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value));
    return { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
  }

  startDrag(event) {
    if (!this.bitmap || event.button > 0) return;
    event.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    const from = this.point(event);
    const before = this.crop;
    const move = (moved) => {
      const to = this.point(moved);
      this.crop = { x: Math.min(from.x, to.x), y: Math.min(from.y, to.y), width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y) };
      this.draw();
    };
    const end = (ended) => {
      this.canvas.removeEventListener("pointermove", move);
      this.canvas.removeEventListener("pointerup", end);
      this.canvas.removeEventListener("pointercancel", end);
      this.setCrop(ended.type === "pointerup" && this.isLarge(this.crop) ? this.crop : before);
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
  }

  moveByKey(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") return this.setCrop(null);
    if (!(event.key in steps) || !this.bitmap) return;
    event.preventDefault();
    const [dx, dy] = steps[event.key].map((step) => step * KEY_STEP);
    const crop = { ...(this.crop ?? { x: 0.1, y: 0.1, width: 0.8, height: 0.8 }) };
    if (event.shiftKey) {
      crop.width = Math.min(1 - crop.x, Math.max(KEY_STEP, crop.width + dx));
      crop.height = Math.min(1 - crop.y, Math.max(KEY_STEP, crop.height + dy));
    } else {
      crop.x = Math.min(1 - crop.width, Math.max(0, crop.x + dx));
      crop.y = Math.min(1 - crop.height, Math.max(0, crop.y + dy));
    }
    this.setCrop(this.isLarge(crop) ? crop : this.crop);
  }

  isLarge(crop) {
    return crop !== null && crop.width * this.bitmap.width >= MIN_CROP && crop.height * this.bitmap.height >= MIN_CROP;
  }

  // Upload a part of the picture, or the whole file as it was chosen.
  setCrop(crop) {
    this.crop = crop;
    this.whole.hidden = crop === null;
    this.draw();
    if (crop === null) return this.put(this.file);
    const part = document.createElement("canvas");
    part.width = Math.round(crop.width * this.bitmap.width);
    part.height = Math.round(crop.height * this.bitmap.height);
    part.getContext("2d").drawImage(this.bitmap, -Math.round(crop.x * this.bitmap.width), -Math.round(crop.y * this.bitmap.height));
    part.toBlob((blob) => {
      if (this.crop === crop && blob) this.put(new File([blob], "crop.jpg", { type: "image/jpeg" }));
    }, "image/jpeg", JPEG_QUALITY);
  }
}

// Put pictures into the slots that their names tell, else into the empty ones, else into the first.
function distribute(slots, files) {
  for (const file of [...files].filter((file) => file.type.startsWith("image/"))) {
    const named = slots.find((slot) => file.name.toLowerCase().includes(slot.element.dataset.modality));
    const slot = slots.length > 1 && named ? named : slots.find((slot) => !slot.file) ?? slots[0];
    slot.choose(file);
  }
}

function watchForm(form) {
  const slots = [...form.querySelectorAll(".slot")].map((element) => new Slot(element));
  for (const hint of form.querySelectorAll(".only-script")) hint.hidden = false;
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    distribute(slots, event.clipboardData.files);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("is-over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) form.classList.remove("is-over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("is-over");
    const slot = slots.find((slot) => slot.element.contains(event.target));
    if (slot && event.dataTransfer.files.length === 1) slot.choose(event.dataTransfer.files[0]);
    else distribute(slots, event.dataTransfer.files);
  });
  for (const slot of slots) if (slot.input.files[0]) slot.choose(slot.input.files[0]);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-confirm]");
  if (button && !window.confirm(button.dataset.confirm)) event.preventDefault();
  const plain = event.target.closest?.("[data-plain]");
  if (plain) { // a plain form post, not one of htmx
    event.preventDefault();
    plain.form.action = plain.getAttribute("formaction");
    plain.form.submit();
  }
});

// The focus follows the results, for keyboards and screen readers.
document.addEventListener("htmx:after:swap", (event) => {
  if (document.getElementById("why")?.childElementCount && event.target.id === "why-form") {
    document.getElementById("why-dialog").showModal();
    document.getElementById("why-title").focus();
    return;
  }
  const results = document.getElementById("results");
  if (results && event.target.id === "search") results.querySelector("h2")?.focus();
});

const form = document.getElementById("search");
if (form) watchForm(form);
