// Server-sent events out of a body that is read as it comes.
//
// The browser's own reader of such streams can carry no token, so the few rules of the format stand here: fields in
// lines, and an empty line that ends an event.

/** The events of an answer in their order (type, id, data), as lists of those that came together; `heard` is called
 *  with each piece. Ends when the body does. */
export async function* events(answer, heard) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      rest += value;
      // A long event comes in many pieces, and only its end has line breaks.
      if (!value.includes("\n")) continue;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      yield blocks.map(parse);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const event = { type: "message", id: null, data: "" };
  for (const line of block.split("\n")) {
    const [, name, text] = /^([a-z]*): ?(.*)$/s.exec(line) ?? [];
    if (name === "event") event.type = text;
    if (name === "id") event.id = text;
    if (name === "data") event.data += text;
  }
  return event;
}
