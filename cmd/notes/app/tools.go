package app

import (
	"context"
	"errors"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type nothing struct{}

type noteText struct {
	Text string `json:"text" jsonschema:"what to write down, up to 1000 characters"`
}

type noteID struct {
	ID int `json:"id" jsonschema:"the number that list_notes gives"`
}

type noteList struct {
	Notes []note `json:"notes"`
}

type identity struct {
	Subject string   `json:"subject"`
	Client  string   `json:"client"`
	Scopes  []string `json:"scopes"`
}

// addTools makes what clients may call.
func (a *App) addTools() {
	a.mcp = mcp.NewServer(&mcp.Implementation{Name: "notes", Title: "Notes", Version: "1"},
		&mcp.ServerOptions{
			Instructions: "Keeps short notes of the person who is signed in.",
			Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{}}, // the tools never change
		})
	a.scopes = make(map[string]string)
	add(a, "whoami", "", "Says who the server takes the caller for.",
		func(who *auth.TokenInfo, _ nothing) (identity, error) {
			client, _ := who.Extra["client_id"].(string)
			return identity{who.UserID, client, who.Scopes}, nil
		})
	add(a, "list_notes", scopeRead, "Lists the person's notes, the oldest first.",
		func(who *auth.TokenInfo, _ nothing) (noteList, error) {
			return noteList{a.notes.list(who.UserID)}, nil
		})
	add(a, "add_note", scopeWrite, "Writes down a note.",
		func(who *auth.TokenInfo, in noteText) (note, error) { return a.notes.add(who.UserID, in.Text) })
	add(a, "delete_note", scopeWrite, "Deletes a note.",
		func(who *auth.TokenInfo, in noteID) (nothing, error) {
			return nothing{}, a.notes.delete(who.UserID, in.ID)
		})
}

// add makes a tool for callers whose token has the scope, if it is not "". An error
// is told to the model that called it.
func add[In, Out any](a *App, name, scope, description string, call func(*auth.TokenInfo, In) (Out, error)) {
	a.scopes[name] = scope
	tool := &mcp.Tool{Name: name, Description: description, Annotations: &mcp.ToolAnnotations{ReadOnlyHint: scope != scopeWrite}}
	mcp.AddTool(a.mcp, tool, func(_ context.Context, r *mcp.CallToolRequest, in In) (*mcp.CallToolResult, Out, error) {
		who := r.Extra.TokenInfo
		if scope != "" && !slices.Contains(who.Scopes, scope) {
			var none Out
			return nil, none, errors.New("the access token lacks the scope " + scope)
		}
		out, err := call(who, in)
		return nil, out, err
	})
}
