// Numbers, sizes, times and states in words. Knows no page.

export const STATES = ["setup", "syncing", "source-selected", "target-selected", "committed"];
export const GLYPHS = {
  "setup": "○", "syncing": "◔", "source-selected": "◐", "target-selected": "◑", "committed": "●",
};
export const MEANINGS = {
  "setup": "on the source alone",
  "syncing": "copying; writes go to both",
  "source-selected": "in sync; reads from the source",
  "target-selected": "in sync; reads from the target",
  "committed": "on the target for good",
};

// What is wrong with the journal of a migration, by the word that the services have for it.
export const JOURNALS = {
  "pending": "has yet to take it",
  "gone-back": "has gone back",
  "unknown": "does not know it",
  "another": "has another",
  "given-away": "gives it to another host",
  "later-run": "gives it to a later run",
  "damaged": "is damaged",
  "unreadable": "cannot be read",
  "newer-version": "is of a newer version",
};

export const NOT_KNOWN = "not known";

// In words, unless nobody can tell.
export const told = (value, words) => (value === null || value === undefined ? NOT_KNOWN : words(value));

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  if (count < 1024) return count === 1 ? "1 byte" : `${Math.round(count)} bytes`;
  let scaled = count / 1024, unit = 0;
  while (scaled >= 1024 && unit < UNITS.length - 1) { scaled /= 1024; unit += 1; }
  const decimals = scaled >= 100 || Number.isInteger(scaled) ? 0 : scaled >= 10 ? 1 : 2;
  return `${scaled.toFixed(decimals)} ${UNITS[unit]}`;
}

export const rate = (perSecond) => (perSecond === null || perSecond === undefined ? "–" : `${bytes(perSecond)}/s`);

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(value >= 100000 ? 0 : 1)} k`;
  return Math.round(value).toLocaleString("en");
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
}

// As much as a glance takes in.
export function briefly(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `${(seconds / 3600).toFixed(seconds < 36000 ? 1 : 0)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const ago = (seconds) => (seconds < 2 ? "just now" : `${duration(seconds)} ago`);

export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
  return `${seconds.toFixed(1)} s`;
}

export function percent(part, whole) {
  if (part === null || part === undefined || !whole) return "–";
  const value = (100 * part) / whole;
  // Nothing is called whole before it is.
  return `${value < 100 ? Math.min(99.9, value).toFixed(1) : "100"} %`;
}

export function clock(at) {
  const time = new Date(at);
  if (Number.isNaN(time.getTime())) return "";
  const today = new Date().toDateString() === time.toDateString();
  const options = today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "medium" };
  return time.toLocaleString(undefined, { ...options, hourCycle: "h23" });
}

export const plural = (number, one, many) => `${number} ${number === 1 ? one : many}`;
