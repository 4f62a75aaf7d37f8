// What an app does with openid-client, given the issuer's URL.
import * as client from "openid-client";
import { importJWK } from "jose";
import { browse, config, end, equal, lies, refuse, signet, step, truthy } from "./harness.mjs";

const issuer = new URL(config.issuer);
const redirect_uri = config.redirectURI;
const scope = "openid profile email offline_access";
const key = { key: await importJWK(config.key, "ES256"), kid: config.key.kid };

// discover finds everything out by the issuer's URL alone. ID tokens' signatures
// are looked at too, though TLS would do for those from the token endpoint.
const discover = (id, metadata, authentication, ...execute) =>
  client.discovery(issuer, id, metadata, authentication, { execute: [client.enableNonRepudiationChecks, ...execute] });

// signIn goes through an authorization; urlOf makes its address.
async function signIn(found, { urlOf = client.buildAuthorizationUrl, parameters = {}, change = (url) => url, fresh } = {}) {
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedNonce = client.randomNonce();
  const expectedState = client.randomState();
  const url = await urlOf(found, {
    redirect_uri, scope, nonce: expectedNonce, state: expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: "S256", ...parameters,
  });
  const answer = change(await browse(url, { fresh }));
  return client.authorizationCodeGrant(found, answer, { pkceCodeVerifier, expectedNonce, expectedState, idTokenExpected: true });
}

const basic = () => discover("basic", {}, client.ClientSecretBasic(config.secrets.basic));

const found = await step("discovery", basic);
const first = await step("code flow with PKCE", () => signIn(found));
const claims = first.claims();
await step("ID token", () => {
  equal(claims.iss, config.issuer, "iss");
  equal(claims.aud, "basic", "aud");
  truthy(claims.sub && claims.auth_time && claims.sid, "sub, auth_time and sid");
});
await step("userinfo", async () => {
  const about = await client.fetchUserInfo(found, first.access_token, claims.sub);
  equal(about.email, config.email, "email");
});
const second = await step("refresh with rotation", async () => {
  const next = await client.refreshTokenGrant(found, first.refresh_token);
  truthy(next.refresh_token && next.refresh_token !== first.refresh_token, "another refresh token");
  truthy(next.access_token !== first.access_token, "another access token");
  equal(next.claims().sub, claims.sub, "sub");
  return next;
});
await step("introspection", async () => equal((await client.tokenIntrospection(found, second.access_token)).active, true, "active"));
await step("revocation", async () => {
  await client.tokenRevocation(found, second.refresh_token);
  equal((await client.tokenIntrospection(found, second.refresh_token)).active, false, "active");
});
await refuse("a refresh token that was revoked", () => client.refreshTokenGrant(found, second.refresh_token));
await refuse("a refresh token used twice", async () => {
  const tokens = await signIn(found);
  await client.refreshTokenGrant(found, tokens.refresh_token);
  await client.refreshTokenGrant(found, tokens.refresh_token);
});
await step("pushed request", async () => {
  const pushed = await discover("pushed", {}, client.ClientSecretPost(config.secrets.pushed));
  await signIn(pushed, { urlOf: client.buildAuthorizationUrlWithPAR });
});
const keyed = await step("private_key_jwt", async () => {
  const found = await discover("keyed", { userinfo_signed_response_alg: "ES256", id_token_signed_response_alg: "ES256" }, client.PrivateKeyJwt(key));
  await client.clientCredentialsGrant(found, { scope: "orders:read" });
  return found;
});
const signed = (found, parameters) => client.buildAuthorizationUrlWithJAR(found, parameters, key);
await step("signed request object, signed userinfo", async () => {
  const tokens = await signIn(keyed, { urlOf: signed });
  const about = await client.fetchUserInfo(keyed, tokens.access_token, tokens.claims().sub);
  equal(about.email, config.email, "email");
});
await step("pushed request object", () =>
  signIn(keyed, {
    urlOf: async (found, parameters) => client.buildAuthorizationUrlWithPAR(found, { request: (await signed(found, parameters)).searchParams.get("request") }),
  }));
await step("JARM", async () => {
  const found = await discover("basic", {}, client.ClientSecretBasic(config.secrets.basic), client.useJwtResponseMode);
  await signIn(found);
});
await step("public client", async () => {
  const found = await discover("public", {}, client.None());
  await signIn(found);
});
await step("dynamic registration", async () => {
  const told = await signet("client", "initial-access-token");
  const found = await client.dynamicClientRegistration(
    issuer, { client_name: "Registered by itself", redirect_uris: [redirect_uri], grant_types: ["authorization_code", "refresh_token"], token_endpoint_auth_method: "client_secret_basic" },
    client.ClientSecretBasic(), { initialAccessToken: told.initial_access_token, execute: [client.enableNonRepudiationChecks] });
  const tokens = await signIn(found, { parameters: { scope: "openid email" } });
  equal(tokens.claims().aud, found.clientMetadata().client_id, "aud");
});

// What the library may not believe.
await lies(async () => {
  const found = await basic();
  const tokens = await signIn(found);
  await client.fetchUserInfo(found, tokens.access_token, tokens.claims().sub);
});
await refuse("a request with another nonce", () =>
  signIn(found, {
    urlOf: (found, parameters) => {
      const url = client.buildAuthorizationUrl(found, parameters);
      url.searchParams.set("nonce", "of-an-attacker");
      return url;
    },
  }));
await refuse("an answer with another state", () => signIn(found, { change: (url) => (url.searchParams.set("state", "of-an-attacker"), url) }));
await refuse("an answer without iss", () => signIn(found, { change: (url) => (url.searchParams.delete("iss"), url) }));
await refuse("a code for another verifier", () => signIn(found, { parameters: { code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" } }));
await refuse("a JARM answer that was altered", async () => {
  const found = await discover("basic", {}, client.ClientSecretBasic(config.secrets.basic), client.useJwtResponseMode);
  await signIn(found, {
    change: (url) => {
      const [header, payload, signature] = url.searchParams.get("response").split(".");
      const members = { ...JSON.parse(Buffer.from(payload, "base64url")), code: "sgc_of-an-attacker" };
      url.searchParams.set("response", [header, Buffer.from(JSON.stringify(members)).toString("base64url"), signature].join("."));
      return url;
    },
  });
});

await step("RP-initiated logout", async () => {
  const tokens = await signIn(found);
  const state = client.randomState();
  const left = await browse(client.buildEndSessionUrl(found, { id_token_hint: tokens.id_token, post_logout_redirect_uri: config.postLogoutURI, state }));
  equal(left.href, `${config.postLogoutURI}?state=${state}`, "where it ends");
});
await refuse("prompt=none after logout", () => signIn(found, { parameters: { prompt: "none" } }));
await end();
