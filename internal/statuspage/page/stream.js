// Requests to the service. The browser sends the session of the person who has signed in.

/** Thrown where the service wants a key, or another one. */
export class Unauthorized extends Error {}

/** request returns the response of the service, or throws what its error says. */
export async function request(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", ...options });
  if (response.ok) return response;
  let text = `${response.status} ${response.statusText}`;
  try { text = (await response.json()).error.message; } catch { /* no JSON: the status has to do */ }
  throw response.status === 401 ? new Unauthorized(text) : new Error(text);
}

/** events calls receive with each event of a response until its stream ends. */
export async function events(response, receive) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) receive(JSON.parse(part.slice(6)));
    }
  }
}
