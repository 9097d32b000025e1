// Receive webhooks on port 8900, and print the events whose signature is good.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = Buffer.from(process.env.WEBHOOK_SECRET.replace("whsec_", ""), "base64");

function isGood(headers, body) {
  const at = headers["webhook-timestamp"];
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${at}.`), body]);
  const ours = Buffer.from("v1," + createHmac("sha256", secret).update(signed).digest("base64"));
  const given = headers["webhook-signature"].split(" ").map((each) => Buffer.from(each));
  const same = given.some((each) => each.length === ours.length && timingSafeEqual(each, ours));
  return same && Math.abs(Date.now() / 1000 - Number(at)) < 300;
}

createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray());
  const good = isGood(request.headers, body);
  if (good) console.log(body.toString());
  response.writeHead(good ? 204 : 401).end();
}).listen(Number(process.argv[2] ?? 8900), "127.0.0.1");
