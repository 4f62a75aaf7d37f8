"""A site whose people Authlib signs in, by its integration with Flask."""

import json
import secrets
import sys
import urllib.parse

from authlib.integrations.flask_client import OAuth
from flask import Flask, redirect, session

config = json.loads(sys.argv[1])
origin = config["origin"]
app = Flask(__name__)
app.secret_key = secrets.token_bytes()
tokens = {}  # by what the cookie names


def renewed(name, token, refresh_token=None, access_token=None):
    tokens[session["id"]] = token


oauth = OAuth(app, update_token=renewed)
oauth.register(
    "signet",
    client_id="shop",
    client_secret=config["secret"],
    server_metadata_url=config["issuer"] + "/.well-known/openid-configuration",
    client_kwargs={"scope": "openid profile email offline_access", "code_challenge_method": "S256"},
)


def endpoint(name):
    return oauth.signet.load_server_metadata()[name]


@app.get("/")
def home():
    token = tokens.get(session.get("id"))
    if token is None:
        return oauth.signet.authorize_redirect(origin + "/callback")
    return {"sub": token["userinfo"]["sub"], "email": oauth.signet.userinfo(token=token)["email"]}


@app.get("/callback")
def callback():
    # The audience is compared only when it is said.
    token = oauth.signet.authorize_access_token(
        claims_options={"iss": {"values": [config["issuer"]]}, "aud": {"values": ["shop"]}}
    )
    session["id"] = secrets.token_hex()
    tokens[session["id"]] = token
    return redirect("/")


@app.get("/refresh")
def refresh():
    before = dict(tokens[session["id"]])
    # The library refreshes a token that it takes to have expired.
    oauth.signet.get(endpoint("userinfo_endpoint"), token=dict(before, expires_at=1)).raise_for_status()
    after = tokens[session["id"]]
    return {"rotated": after["refresh_token"] != before["refresh_token"] and after["access_token"] != before["access_token"]}


@app.get("/logout")
def logout():
    token = tokens.pop(session.pop("id"))
    query = {"id_token_hint": token["id_token"], "post_logout_redirect_uri": origin + "/signed-out"}
    return redirect(endpoint("end_session_endpoint") + "?" + urllib.parse.urlencode(query))


@app.get("/signed-out")
def signed_out():
    return "signed out"


@app.errorhandler(Exception)
def refused(err):
    return f"refused: {type(err).__name__} {err}", 400


print("ready", flush=True)
host, port = urllib.parse.urlsplit(origin).netloc.split(":")
app.run(host, int(port))
