// Parses and validates an AsyncAPI document with the project's own parser: one JSON array of what it has to say, on standard output.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

new Parser().parse(readFileSync(process.argv[2], "utf8")).then(({ diagnostics }) => {
  const told = diagnostics.map(({ severity, code, path, message }) => ({ severity, code, path: path.join("."), message }));
  process.stdout.write(JSON.stringify(told));
});
