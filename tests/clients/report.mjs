// How a program in JavaScript tells what its client gives it.
export function report(type, data, id) {
  console.log(JSON.stringify([type, data, id]));
}
