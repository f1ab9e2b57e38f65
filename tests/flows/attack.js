// All that a page may try on a Prefect server, without a password. Returns what it was shown, by the name of the try;
// what it made has a name that begins with `mark`.
async (server, mark) => {
  const api = `http://${server}/api`;
  const json = {"Content-Type": "application/json"};
  const shown = {};

  async function ask(name, path, options) {
    try {
      const answer = await fetch(api + path, options);
      if (answer.ok) return (shown[name] = await answer.text());
    } catch { /* the browser shows the page nothing */ }
    return "{}";
  }
  const post = (name, path, content, options) =>
    ask(name, path, {method: "POST", headers: json, body: JSON.stringify(content), ...options});
  const flow = (how) => ({name: `${mark}-${how}`});

  await ask("version", "/admin/version");
  await ask("token", "/csrf-token?client=page");
  await post("flows", "/flows/filter", {});
  const made = JSON.parse(await post("json", "/flows/", flow("json")));
  await post("run", "/flow_runs/", {flow_id: made.id, name: `${mark}-run`, state: {type: "SCHEDULED"}});
  await post("pool", "/work_pools/", {name: `${mark}-pool`, type: "process"});
  await post("guessed", "/flows/", flow("guessed"), {headers: {...json, Authorization: `Basic ${btoa("admin:pass")}`}});
  await post("cookies", "/flows/", flow("cookies"), {credentials: "include"});
  await post("text", "/flows/", flow("text"), {headers: {}});
  // No type and no look at the answer: no browser asks the server beforehand.
  const untyped = new Blob([JSON.stringify(flow("untyped"))]);
  await ask("untyped", "/flows/", {method: "POST", mode: "no-cors", body: untyped});

  const frame = document.createElement("iframe");
  frame.name = "answer";
  document.body.append(frame);
  const form = document.body.appendChild(document.createElement("form"));
  Object.assign(form, {action: `${api}/flows/`, method: "POST", enctype: "text/plain", target: "answer"});
  const field = form.appendChild(document.createElement("input"));
  Object.assign(field, {name: `{"name": "${mark}-form", "tags": ["`, value: `"]}`});
  await Promise.race([
    new Promise((loaded) => { frame.onload = loaded; form.submit(); }),
    new Promise((late) => setTimeout(late, 5000)),
  ]);

  for (const [path, protocols] of [["/events/in", []], ["/events/out", ["prefect"]], ["/logs/out", ["prefect"]]]) {
    await new Promise((done) => {
      const socket = new WebSocket(`ws://${server}/api${path}`, protocols);
      socket.onopen = () => { shown[path] = "open"; socket.close(); };
      socket.onclose = done;
    });
  }
  return shown;
}
