// Reads requests as JSON lines ({headers, body} with the body in base64) and says of each what the libraries make of it.
// node check.js webhook SECRET | node check.js cloudevent
const readline = require("node:readline");
const [what, secret] = process.argv.slice(2);

function webhook({ headers, body }) {
  const { Webhook } = require("standardwebhooks");
  new Webhook(secret).verify(body, headers); // throws if the signature is wrong or too old
  return { verified: true };
}

function cloudevent({ headers, body }) {
  const { HTTP } = require("cloudevents");
  const event = HTTP.toEvent({ headers, body: body.toString() });
  event.validate();
  const plain = JSON.parse(JSON.stringify(event));
  return { valid: true, event: plain };
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const request = JSON.parse(line);
  request.body = Buffer.from(request.body, "base64");
  let said;
  try {
    said = what === "webhook" ? webhook(request) : cloudevent(request);
  } catch (error) {
    said = { error: `${error.name}: ${error.message}` };
  }
  console.log(JSON.stringify(said));
});
