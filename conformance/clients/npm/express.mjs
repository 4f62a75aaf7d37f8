// An app that has people signed in by express-openid-connect. Its one page asks
// for that and tells what the app knows.
import express from "express";
import openid from "express-openid-connect";

const config = JSON.parse(process.argv[2]);

// Where sessions that were ended from outside are remembered.
const ended = new Map();
const store = {
  get: (id, done) => done(null, ended.get(id)),
  set: (id, value, done) => done(null, ended.set(id, value)),
  destroy: (id, done) => done(null, ended.delete(id)),
};

const app = express();
app.use(
  openid.auth({
    issuerBaseURL: config.issuer,
    baseURL: config.origin,
    clientID: config.id,
    clientSecret: config.secret,
    clientAuthMethod: "client_secret_basic",
    secret: "what this app's cookies are sealed with",
    authRequired: false,
    idpLogout: true,
    discoveryCacheMaxAge: 1, // in milliseconds: it is told lies about it
    authorizationParams: { response_type: "code", scope: "openid profile email offline_access", ...config.parameters },
    pushedAuthorizationRequests: config.push,
    routes: { postLogoutRedirect: "/signed-out", backchannelLogout: "/logout/told" },
    backchannelLogout: { store },
  }),
);
app.get("/", openid.requiresAuth(), async (req, res) => {
  const userinfo = await req.oidc.fetchUserInfo();
  res.json({ claims: req.oidc.idTokenClaims, userinfo });
});
app.get("/refresh", openid.requiresAuth(), async (req, res) => {
  const before = req.oidc.refreshToken;
  await req.oidc.accessToken.refresh();
  await req.oidc.fetchUserInfo();
  res.json({ rotated: req.oidc.refreshToken !== before });
});
app.get("/signed-out", (req, res) => res.send("signed out"));
app.use((err, req, res, next) => res.status(err.status ?? 500).send(`refused: ${err.message} ${err.error_description ?? ""} ${err.cause?.message ?? ""}`));

const [host, port] = new URL(config.origin).host.split(":");
app.listen(Number(port), host, () => console.log("ready"));
