package web

import (
	"net/url"
	"strings"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// newPassword returns the new password of a form that has it typed twice.
func newPassword(form url.Values) (string, []templates.Problem) {
	switch password := form.Get("new_password"); {
	case password == "":
		return "", []templates.Problem{templates.NewPasswordMissing()}
	case password != form.Get("repeat_password"):
		return "", []templates.Problem{templates.RepeatDiffers()}
	default:
		return password, nil
	}
}

// passwordProblems says in the person's language why a password was refused.
func passwordProblems(invalid *provider.InvalidError) []templates.Problem {
	var problems []templates.Problem
	for _, fault := range invalid.Faults {
		is := func(beginning string) bool { return strings.HasPrefix(fault.Problem, beginning) }
		switch {
		case is("has a control"), is("is not UTF-8"):
			problems = append(problems, templates.NewPasswordCharacter())
		case is("has "):
			problems = append(problems, templates.NewPasswordShort(provider.MinPassword))
		case is("is longer"):
			problems = append(problems, templates.NewPasswordLong())
		case is("contains"):
			word := strings.Split(fault.Problem+`""`, `"`)[1]
			problems = append(problems, templates.NewPasswordPersonal(word))
		case is("is the one"):
			problems = append(problems, templates.NewPasswordSame())
		default:
			problems = append(problems, templates.NewPasswordCommon())
		}
	}
	return problems
}
