// What an app does with oauth4webapi, and with jose for what it leaves to the
// app: logout tokens, and an API's look at access tokens.
import { createServer } from "node:http";
import * as oauth from "oauth4webapi";
import { createRemoteJWKSet, importJWK, jwtVerify } from "jose";
import { browse, config, end, equal, lies, refuse, signet, step, truthy } from "./harness.mjs";

const issuer = new URL(config.issuer);
const redirect_uri = config.redirectURI;
const scope = "openid profile email offline_access";
const key = { key: await importJWK(config.key, "ES256"), kid: config.key.kid };

const discover = async () => oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer));
const app = { client_id: "basic" };
const secret = oauth.ClientSecretBasic(config.secrets.basic);

// signIn goes through an authorization. make turns parameters into those that
// the browser carries, and read takes the answer apart.
async function signIn(as, { client = app, authentication = secret, parameters = {}, make = (p) => p, read = oauth.validateAuthResponse, change = (url) => url, fresh } = {}) {
  const verifier = oauth.generateRandomCodeVerifier();
  const expectedNonce = oauth.generateRandomNonce();
  const state = oauth.generateRandomState();
  const url = new URL(as.authorization_endpoint);
  url.search = new URLSearchParams(await make({
    client_id: client.client_id, redirect_uri, scope, response_type: "code", nonce: expectedNonce, state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", ...parameters,
  }));
  const answer = await read(as, client, change(await browse(url, { fresh })), state);
  const response = await oauth.authorizationCodeGrantRequest(as, client, authentication, answer, redirect_uri, verifier);
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, { expectedNonce, requireIdToken: true });
  await oauth.validateApplicationLevelSignature(as, response);
  return tokens;
}

const userinfo = async (as, tokens, client = app) => {
  const response = await oauth.userInfoRequest(as, client, tokens.access_token);
  const about = await oauth.processUserInfoResponse(as, client, oauth.getValidatedIdTokenClaims(tokens).sub, response);
  if (client.userinfo_signed_response_alg) await oauth.validateApplicationLevelSignature(as, response);
  return about;
};

const refresh = async (as, token) =>
  oauth.processRefreshTokenResponse(as, app, await oauth.refreshTokenGrantRequest(as, app, secret, token));

const introspect = async (as, token, options) => {
  const response = await oauth.introspectionRequest(as, app, secret, token, options);
  const about = await oauth.processIntrospectionResponse(as, app, response);
  if (options?.requestJwtResponse) await oauth.validateApplicationLevelSignature(as, response);
  return about;
};

const push = async (as, client, authentication, parameters) =>
  oauth.processPushedAuthorizationResponse(as, client, await oauth.pushedAuthorizationRequest(as, client, authentication, parameters));

// Whoever signs out: the app is told.
const told = [];
const waiting = [];
const listener = createServer(async (req, res) => {
  let body = "";
  for await (const part of req) body += part;
  told.push(new URLSearchParams(body).get("logout_token"));
  waiting.shift()?.();
  res.end();
}).listen(Number(config.listen.split(":")[1]), "127.0.0.1");

const as = await step("discovery", discover);
const keys = createRemoteJWKSet(new URL(as.jwks_uri));
const tokens = await step("code flow with PKCE", () => signIn(as));
const claims = oauth.getValidatedIdTokenClaims(tokens);
await step("userinfo", async () => equal((await userinfo(as, tokens)).email, config.email, "email"));
await step("access token, by the library and by jose", async () => {
  const request = new Request("https://api.example/", { headers: { Authorization: `Bearer ${tokens.access_token}` } });
  equal((await oauth.validateJwtAccessToken(as, request, config.issuer)).sub, claims.sub, "sub");
  equal((await jwtVerify(tokens.access_token, keys, { issuer: config.issuer, audience: config.issuer, typ: "at+jwt" })).payload.client_id, "basic", "client_id");
});
await refuse("an ID token for an access token", () =>
  oauth.validateJwtAccessToken(as, new Request("https://api.example/", { headers: { Authorization: `Bearer ${tokens.id_token}` } }), "basic"));
await refuse("an access token for another audience", () =>
  oauth.validateJwtAccessToken(as, new Request("https://api.example/", { headers: { Authorization: `Bearer ${tokens.access_token}` } }), "https://api.example"));
const next = await step("refresh with rotation", async () => {
  const next = await refresh(as, tokens.refresh_token);
  truthy(next.refresh_token && next.refresh_token !== tokens.refresh_token, "another refresh token");
  equal(oauth.getValidatedIdTokenClaims(next).sub, claims.sub, "sub");
  return next;
});
await step("introspection, plain and signed", async () => {
  equal((await introspect(as, next.access_token)).active, true, "active");
  equal((await introspect(as, next.access_token, { requestJwtResponse: true })).active, true, "active");
});
await step("revocation", async () => {
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, app, secret, next.refresh_token));
  equal((await introspect(as, next.refresh_token)).active, false, "active");
});
await refuse("a refresh token that was revoked", () => refresh(as, next.refresh_token));
await step("pushed request", () => {
  const client = { client_id: "pushed" };
  const authentication = oauth.ClientSecretPost(config.secrets.pushed);
  return signIn(as, { client, authentication, make: async (p) => ({ client_id: "pushed", request_uri: (await push(as, client, authentication, p)).request_uri }) });
});
await step("private_key_jwt, signed request object and userinfo", async () => {
  const client = { client_id: "keyed", userinfo_signed_response_alg: "ES256", id_token_signed_response_alg: "ES256" };
  const make = async (p) => ({ client_id: "keyed", request: await oauth.issueRequestObject(as, client, p, key) });
  const tokens = await signIn(as, { client, authentication: oauth.PrivateKeyJwt(key), make });
  equal((await userinfo(as, tokens, client)).email, config.email, "email");
});
await step("JARM", () => signIn(as, { parameters: { response_mode: "jwt" }, read: oauth.validateJwtAuthResponse }));
await step("public client", () => signIn(as, { client: { client_id: "public" }, authentication: oauth.None() }));
await step("dynamic registration", async () => {
  const { initial_access_token: initialAccessToken } = await signet("client", "initial-access-token");
  const client = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(
    as, { client_name: "Registered by itself", redirect_uris: [redirect_uri], token_endpoint_auth_method: "client_secret_post" }, { initialAccessToken }));
  const tokens = await signIn(as, { client, authentication: oauth.ClientSecretPost(client.client_secret), parameters: { scope: "openid" } });
  equal(oauth.getValidatedIdTokenClaims(tokens).aud, client.client_id, "aud");
});

// What the library may not believe.
await lies(async () => {
  const as = await discover();
  await userinfo(as, await signIn(as));
});
await refuse("a request with another nonce", () => signIn(as, { make: (p) => ({ ...p, nonce: "of-an-attacker" }) }));
await refuse("an answer with another state", () => signIn(as, { change: (url) => (url.searchParams.set("state", "of-an-attacker"), url) }));
await refuse("an answer without iss", () => signIn(as, { change: (url) => (url.searchParams.delete("iss"), url) }));

// readLogout is what Back-Channel Logout §2.6 asks of an app.
async function readLogout(token, { audience = "basic", from = keys } = {}) {
  const { payload } = await jwtVerify(token, from, { issuer: config.issuer, audience, typ: "logout+jwt", requiredClaims: ["iat", "exp", "jti"] });
  truthy(payload.events?.["http://schemas.openid.net/event/backchannel-logout"], "the event");
  equal(payload.nonce, undefined, "nonce");
  return payload;
}
const last = await step("back-channel logout, by jose", async () => {
  const tokens = await signIn(as);
  const { sid, sub } = oauth.getValidatedIdTokenClaims(tokens);
  const logout = new URL(as.end_session_endpoint);
  logout.search = new URLSearchParams({ id_token_hint: tokens.id_token, post_logout_redirect_uri: config.postLogoutURI });
  const arrives = new Promise((resolve) => waiting.push(resolve));
  equal((await browse(logout)).href, config.postLogoutURI, "where it ends");
  await arrives;
  const logoutToken = told.at(-1);
  const payload = await readLogout(logoutToken);
  equal(payload.sid, sid, "sid");
  equal(payload.sub, sub, "sub");
  return { logoutToken, idToken: tokens.id_token };
});
await refuse("an ID token for a logout token", () => readLogout(last.idToken));
await refuse("a logout token for another app", () => readLogout(last.logoutToken, { audience: "pushed" }));
await refuse("a logout token under another key", async () => {
  const { publicKey } = await crypto.subtle.generateKey({ name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" }, true, ["sign", "verify"]);
  await readLogout(last.logoutToken, { from: publicKey });
});
listener.close();
await end();
