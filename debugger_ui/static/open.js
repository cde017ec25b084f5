// A place to drop a file: what is dropped is put into the form, which goes its usual way.

const form = document.querySelector("[data-drop]"), field = form.querySelector("[type=file]");
const says = form.querySelector("[data-says]");

for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) form.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  field.files = event.dataTransfer.files;
  send();
});
field.addEventListener("change", send);
form.addEventListener("submit", (event) => { if (!fits()) event.preventDefault(); });

function send() {
  if (fits()) form.requestSubmit();
}

function fits() {
  const file = field.files[0], most = Number(form.dataset.most);
  const isTooLarge = Boolean(file) && file.size > most;
  says.hidden = !isTooLarge;
  if (isTooLarge) says.textContent = `${file.name} has ${file.size.toLocaleString("en-US")} bytes; ${most.toLocaleString("en-US")} can be dropped. Open it with: kairos ui --file ${file.name}`;
  return !isTooLarge;
}
