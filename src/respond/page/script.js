"use strict";
(() => {
  const words = {
    pending: "Waiting", running: "Running", succeeded: "Done", failed: "Failed", canceled: "Canceled",
  };
  const find = (root, name) => root.querySelector(`[data-is="${name}"]`);
  const text = (root, name, value) => {
    const place = find(root, name);
    if (place && place.textContent !== value) place.textContent = value;
  };
  const local = (time) => { time.textContent = new Date(time.dateTime).toLocaleString(); };

  const show = (root, operation) => {
    const live = operation.status === "pending" || operation.status === "running";
    const canceling = live && operation.cancel_requested;
    const status = find(root, "status");
    status.className = operation.status;
    text(root, "status", words[operation.status] + (canceling ? ", to be canceled" : ""));
    text(root, "message", operation.progress?.message ?? "");
    const progress = find(root, "progress");
    const fraction = operation.progress?.fraction;
    if (fraction === undefined) progress.removeAttribute("value");
    else progress.value = fraction;
    find(root, "bar").hidden = !live;
    for (const name of ["created", "started", "finished", "expires"]) {
      const time = find(root, name);
      if (!time) continue;
      if (operation[name] && time.dateTime !== operation[name]) {
        time.dateTime = operation[name];
        local(time);
      }
      const line = time.closest("[data-line]");
      if (line) line.hidden = !operation[name];
    }
    const problem = find(root, "problem");
    problem.hidden = !operation.error;
    if (operation.error) {
      text(root, "title", operation.error.title ?? "It failed.");
      text(root, "detail", operation.error.detail ?? "");
    }
    const links = { monitor: operation.links.self, result: operation.links.result, location: operation.result?.location };
    for (const [name, href] of Object.entries(links)) {
      const link = find(root, name);
      if (!link) continue;
      if (href) link.href = href;
      link.hidden = !href;
    }
    text(root, "kind", operation.kind);
    const cancel = find(root, "cancel");
    cancel.action = operation.links.self + "/cancel";
    if (!cancel.hidden && (!live || canceling) && cancel.contains(document.activeElement)) {
      status.focus();
    }
    cancel.hidden = !live || canceling;
    return live;
  };

  const page = document.querySelector("[data-page]");
  document.querySelectorAll("time[datetime]").forEach(local);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    event.preventDefault();
    // What is refused, the browser shows as it shows any page. A redirect leads to where one is already.
    fetch(form.action, { method: "POST", redirect: "manual" })
      .then((answer) => { if (!answer.ok && answer.type !== "opaqueredirect") form.submit(); })
      .catch(() => form.submit());
  });

  const mostRows = 500;
  const told = new Map();
  const row = (operation) => {
    const found = document.getElementById(operation.id);
    const template = document.querySelector("template");
    if (found || !template) return found;
    // Ids grow with time, and the newest stands first.
    const rows = find(page, "rows");
    const after = [...rows.children].find((row) => row.id < operation.id);
    if (!after && document.querySelector("a[rel=next]")) return null;
    const made = template.content.cloneNode(true).firstElementChild;
    made.id = operation.id;
    rows.insertBefore(made, after ?? null);
    if (rows.children.length > mostRows) {
      told.delete(rows.lastElementChild.id);
      rows.lastElementChild.remove();
    }
    find(page, "table").hidden = false;
    find(page, "none").hidden = true;
    return made;
  };
  const follow = () => {
    const source = new EventSource(location.href);
    source.addEventListener("operation", (event) => {
      const operation = JSON.parse(event.data);
      if (page.dataset.page === "list") {
        const root = row(operation);
        if (!root) return;
        show(root, operation);
        const before = told.get(operation.id);
        told.set(operation.id, operation.status);
        if (before && before !== operation.status) {
          text(page, "news", `${operation.kind}: ${words[operation.status]}`);
        }
        return;
      }
      document.title = `${operation.kind}: ${words[operation.status]}`;
      if (!show(page, operation)) source.close();
    });
    source.addEventListener("error", () => {
      // It does not come again by itself: there is no stream here, or nothing more to tell.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
    });
  };
  follow();
})();
