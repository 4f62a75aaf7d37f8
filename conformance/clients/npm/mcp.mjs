// The official SDKs of the Model Context Protocol, given nothing but a server's URL:
// @modelcontextprotocol/client, and @modelcontextprotocol/sdk, the major version
// before it.
import { config, browse, step, refuse, lies, equal, truthy, end } from "./harness.mjs";

const newest = config.sdk === "client";
const { Client, StreamableHTTPClientTransport, UnauthorizedError, auth } = newest
  ? await import("@modelcontextprotocol/client")
  : {
      ...(await import("@modelcontextprotocol/sdk/client/index.js")),
      ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
      ...(await import("@modelcontextprotocol/sdk/client/auth.js")),
    };

// Agent is an application with one server. It keeps in memory what the SDK gives it
// to keep, and has the person sign in where the SDK asks for it.
class Agent {
  constructor(server, { refreshes = true, document } = {}) {
    this.server = server;
    this.kept = {};
    this.asked = [];
    this.provider = {
      redirectUrl: config.redirectURI,
      clientMetadataUrl: document,
      clientMetadata: {
        client_name: "Agent in JavaScript",
        redirect_uris: [config.redirectURI],
        token_endpoint_auth_method: "none",
        grant_types: refreshes ? ["authorization_code", "refresh_token"] : ["authorization_code"],
      },
      state: () => (this.kept.state = crypto.randomUUID()),
      clientInformation: () => this.kept.client,
      saveClientInformation: (client) => void (this.kept.client = client),
      tokens: () => this.kept.tokens,
      saveTokens: (tokens) => void (this.kept.tokens = tokens),
      codeVerifier: () => this.kept.verifier,
      saveCodeVerifier: (verifier) => void (this.kept.verifier = verifier),
      discoveryState: () => this.kept.discovery,
      saveDiscoveryState: (discovery) => void (this.kept.discovery = discovery),
      redirectToAuthorization: (url) => void (this.asks = url),
    };
  }

  async connect() {
    this.transport = new StreamableHTTPClientTransport(new URL(this.server), { authProvider: this.provider });
    this.client = new Client({ name: "agent", version: "1" });
    await this.client.connect(this.transport);
  }

  // willing does something, and once more after the person has allowed it.
  async willing(run) {
    try {
      return await run();
    } catch (err) {
      if (!(err instanceof UnauthorizedError) || !this.asks) throw err;
    }
    const request = this.asks.searchParams;
    this.asked.push(request);
    const answer = (await browse(this.asks)).searchParams;
    this.asks = undefined;
    if (answer.has("error")) throw new Error(`${answer.get("error")}: ${answer.get("error_description")}`);
    equal(answer.get("state"), this.kept.state, "state");
    await (newest ? this.transport.finishAuth(answer) : this.transport.finishAuth(answer.get("code")));
    return await run();
  }

  async call(name, args = {}) {
    const result = await this.willing(() => this.client.callTool({ name, arguments: args }));
    if (result.isError) throw new Error(JSON.stringify(result.content));
    return JSON.parse(result.content[0].text);
  }
}

// The SDK before tries to refresh its token when it is asked for more scope, which
// brings none, and gives up: its agents step up where they have no refresh token.
const agent = new Agent(config.server, { refreshes: newest });

await step("discovery, registration and sign-in", () => agent.willing(() => agent.connect()));

await step("a tool", async () => equal((await agent.call("list_notes")).notes.length, 0, "notes"));

await step("a tool that needs more", async () => {
  await agent.call("add_note", { text: "feed the heron" });
  equal((await agent.call("list_notes")).notes[0].text, "feed the heron", "note");
  const who = await agent.call("whoami");
  equal(who.client, agent.kept.client.client_id, "client");
  const scopes = agent.asked.map((request) => request.get("scope").split(" ").sort().join(" "));
  const want = newest ? ["notes:read offline_access", "notes:read notes:write offline_access"] : ["notes:read", "notes:read notes:write"];
  equal(scopes.join(", "), want.join(", "), "scopes asked for");
  for (const request of agent.asked) equal(request.get("resource"), config.server, "resource");
});

await step("refresh", async () => {
  const refreshing = newest ? agent : new Agent(config.server);
  if (!newest) await refreshing.willing(() => refreshing.connect());
  const before = refreshing.kept.tokens;
  truthy(before.refresh_token, "refresh token");
  equal(await auth(refreshing.provider, { serverUrl: config.server }), "AUTHORIZED", "auth");
  truthy(refreshing.kept.tokens.access_token !== before.access_token && refreshing.kept.tokens.refresh_token !== before.refresh_token, "new tokens");
  await refreshing.call("list_notes");
});

await step("known by its document", async () => {
  const published = new Agent(config.server, { document: config.document });
  await published.willing(() => published.connect());
  equal((await published.call("whoami")).client, config.document, "client");
  equal(published.asked[0].get("client_id"), config.document, "client_id asked with");
});

const fresh = async (server) => {
  const another = new Agent(server);
  await another.willing(() => another.connect());
};
await lies(() => fresh(config.server));
if (config.wrong) await refuse("a server that names another issuer", () => fresh(config.wrong));

await end();
