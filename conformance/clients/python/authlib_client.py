"""What an app does with Authlib, given the issuer's URL.

The library is Debian's, or the one that is found first. It has no discovery of
its own outside of web frameworks, so the app fetches the metadata; and what an
ID token has to say is checked by the library's own classes.
"""

import json
import sys
import time
import traceback
import urllib.parse

import authlib
import requests
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oidc.core import CodeIDToken, UserInfo
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url

try:  # keys of newer versions
    from joserfc.jwk import ECKey
except ImportError:
    ECKey = JsonWebKey

config = json.loads(sys.argv[1])
SCOPE = "openid profile email offline_access"


def ask(**message):
    print(json.dumps(message), flush=True)
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)  # the test has ended
    answer = json.loads(line)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def step(name, run):
    try:
        value = run()
    except Exception:
        ask(do="failed", name=name, why=traceback.format_exc())
        sys.exit(1)
    ask(do="passed", name=name)
    return value


def refuse(name, run):
    try:
        run()
    except Exception as err:
        ask(do="refused", name=name, why=f"{type(err).__name__} {err}")
    else:
        ask(do="accepted", name=name)


def equal(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def discover():
    found = requests.get(get_well_known_url(config["issuer"], external=True), timeout=60)
    found.raise_for_status()
    metadata = OpenIDProviderMetadata(found.json())
    # Each member by itself: validate() looks at all, and wants request objects
    # without a signature to be offered.
    for name in metadata.REGISTRY_KEYS:
        if name != "request_object_signing_alg_values_supported":
            getattr(metadata, "validate_" + name)()
    equal(metadata["issuer"], config["issuer"], "issuer")
    return metadata


class App:
    def __init__(self, **more):
        self.metadata = discover()
        self.session = OAuth2Session(
            redirect_uri=config["redirectURI"], scope=SCOPE, code_challenge_method="S256", **more
        )

    def authorize(self, change=lambda url: url):
        self.nonce = generate_token()
        self.verifier = generate_token(48)
        url, self.state = self.session.create_authorization_url(
            self.metadata["authorization_endpoint"], nonce=self.nonce, code_verifier=self.verifier
        )
        return change(ask(do="browse", url=url)["url"])

    def redeem(self, answer):
        return self.session.fetch_token(
            self.metadata["token_endpoint"], authorization_response=answer, state=self.state, code_verifier=self.verifier
        )

    def claims(self, token):
        """The ID token's claims, validated by the library."""
        keys = JsonWebKey.import_key_set(requests.get(self.metadata["jwks_uri"], timeout=60).json())
        claims = JsonWebToken(["RS256"]).decode(
            token["id_token"],
            key=keys,
            claims_cls=CodeIDToken,
            claims_options={"iss": {"value": config["issuer"]}, "aud": {"value": self.session.client_id}},
            claims_params={"nonce": self.nonce, "client_id": self.session.client_id, "access_token": token["access_token"]},
        )
        claims.validate()
        return claims

    def sign_in(self, change=lambda url: url):
        token = self.redeem(self.authorize(change))
        return token, self.claims(token)

    def userinfo(self):
        answer = self.session.get(self.metadata["userinfo_endpoint"], timeout=60)
        answer.raise_for_status()
        return UserInfo(answer.json())


def basic():
    return App(client_id="basic", client_secret=config["secrets"]["basic"], token_endpoint_auth_method="client_secret_basic")


app = step("discovery", basic)
token, claims = step("code flow with PKCE", app.sign_in)
step("userinfo", lambda: equal(app.userinfo().email, config["email"], "email"))


def refresh():
    new = app.session.refresh_token(app.metadata["token_endpoint"], token["refresh_token"])
    if new["refresh_token"] == token["refresh_token"]:
        raise AssertionError("the refresh token is the same")
    equal(app.userinfo().sub, claims["sub"], "sub")
    return new


new = step("refresh with rotation", refresh)


def introspected():
    answer = app.session.introspect_token(app.metadata["introspection_endpoint"], token=new["refresh_token"])
    return answer.json()["active"]


step("introspection", lambda: equal(introspected(), True, "active"))


def revoke():
    app.session.revoke_token(app.metadata["revocation_endpoint"], token=new["refresh_token"]).raise_for_status()
    equal(introspected(), False, "active")


step("revocation", revoke)
refuse("a refresh token that was revoked", lambda: app.session.refresh_token(app.metadata["token_endpoint"], new["refresh_token"]))


def keyed():
    app = App(client_id="asserting", client_secret=ECKey.import_key(config["key"]), token_endpoint_auth_method="private_key_jwt")
    app.session.register_client_auth_method(
        # By itself the library names the token endpoint, and lets an assertion live for an hour.
        PrivateKeyJWT(config["issuer"], claims={"exp": int(time.time()) + 60}, alg="ES256")
    )
    app.sign_in()


step("private_key_jwt", keyed)
step("public client", lambda: App(client_id="public", token_endpoint_auth_method="none").sign_in())

for lie in config["lies"]:
    ask(do="tell", name=lie)
    refuse(lie, lambda: basic().sign_in())
ask(do="tell", name="")


def altered(name, value):
    def change(url):
        at = urllib.parse.urlsplit(url)
        query = dict(urllib.parse.parse_qsl(at.query), **{name: value})
        return at._replace(query=urllib.parse.urlencode(query)).geturl()

    return change


refuse("an answer with another state", lambda: basic().sign_in(altered("state", "of-an-attacker")))
refuse("an altered code", lambda: basic().sign_in(altered("code", "sgc_of-an-attacker")))


def logout():
    token, _ = app.sign_in()
    query = urllib.parse.urlencode({"id_token_hint": token["id_token"], "post_logout_redirect_uri": config["postLogoutURI"]})
    equal(ask(do="browse", url=app.metadata["end_session_endpoint"] + "?" + query)["url"], config["postLogoutURI"], "where it ends")


step("RP-initiated logout", logout)
ask(do="end", name=authlib.__version__)
