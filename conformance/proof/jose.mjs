// A resource server's check of access tokens, as the documentation of jose has
// it: reads a token a line, and answers each with "accepted", or with the code
// and the words of jose's error. jose_test.go starts it.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { issuer, audience, jwks, cacheMaxAge, cooldownDuration } = JSON.parse(process.argv[2]);
const keys = createRemoteJWKSet(new URL(jwks), { cacheMaxAge, cooldownDuration });
const options = {
  issuer,
  audience,
  typ: "at+jwt", // RFC 9068 §4
  algorithms: ["ES256", "RS256", "PS256", "EdDSA"],
  clockTolerance: 30, // seconds, as package verify
};

console.log("ready");
for await (const token of createInterface({ input: process.stdin })) {
  try {
    await jwtVerify(token, keys, options);
    console.log("accepted");
  } catch (err) {
    console.log(`${err.code} ${err.message}`.replaceAll("\n", " "));
  }
}
