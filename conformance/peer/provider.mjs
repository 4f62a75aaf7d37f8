// Runs the provider of the npm package oidc-provider with everything switched on
// that the checks ask for, and with the clients that they use. It reads the
// clients as JSON from its first argument, and says on standard output when it
// listens.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { Provider, errors } from 'oidc-provider';

const setup = JSON.parse(readFileSync(process.argv[2], 'utf8'));

// A key that signs, of its own for each algorithm.
function key(alg, type, options) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg };
}
const keys = [key('RS256', 'rsa', { modulusLength: 2048 }), key('ES256', 'ec', { namedCurve: 'P-256' })];
const algs = ['RS256', 'ES256'];

const provider = new Provider(setup.issuer, {
  clients: setup.clients,
  jwks: { keys },
  responseTypes: ['code'],
  scopes: ['openid', 'offline_access', 'profile', 'email'],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'] },
  findAccount: (_ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: 'Alice Example', preferred_username: id, email: 'alice@example.com', email_verified: true }),
  }),
  clientBasedCORS: () => true,
  subjectTypes: ['public', 'pairwise'],
  pairwiseIdentifier: (_ctx, account, client) => createHash('sha256').update(client.sectorIdentifier + account).digest('base64url'),
  allowOmittingSingleRegisteredRedirectUri: false,
  enableHttpPostMethods: true,
  cookies: { keys: ['not a secret: it runs for one test'], long: { sameSite: 'none' } },
  // It calls no private address. The app that is told of logouts is at one.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  enabledJWA: {
    clientAuthSigningAlgValues: ['ES256'],
    idTokenSigningAlgValues: algs,
    introspectionSigningAlgValues: algs,
    requestObjectSigningAlgValues: ['ES256'],
    userinfoSigningAlgValues: algs,
    authorizationSigningAlgValues: algs,
  },
  features: {
    backchannelLogout: { enabled: true },
    claimsParameter: { enabled: true },
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_ctx, client, token) => client.clientAuthMethod !== 'none' && token.clientId === client.clientId },
    jwtIntrospection: { enabled: true },
    jwtResponseModes: { enabled: true },
    jwtUserinfo: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    registration: { enabled: true, initialAccessToken: setup.initialAccessToken },
    registrationManagement: { enabled: true },
    requestObjects: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => {
        if (!(resource in setup.resources)) throw new errors.InvalidTarget();
        return { scope: setup.resources[resource], audience: resource, accessTokenFormat: setup.format, jwt: { sign: { alg: 'ES256' } } };
      },
    },
  },
});
// What it has nothing to say of, its own development pages included, it says on
// standard error.
const server = createServer(provider.callback());
server.listen(setup.port, '127.0.0.1', () => console.log(JSON.stringify({ listen: server.address().port })));
