package templates

import "time"

// Problem is something wrong with a form as it was sent: a sentence for the
// person, and the field to mend it in. The functions below are all there are.
type Problem struct {
	field string // the id of the field, or "" when no field is at fault
	key   string
	pairs []any // as for Locale.Text
}

// UsernameMissing: nothing was given to sign in with.
func UsernameMissing() Problem { return Problem{field: "username", key: "problem.username_missing"} }

// PasswordMissing: no password was given to sign in with.
func PasswordMissing() Problem { return Problem{field: "password", key: "problem.password_missing"} }

// SignInRefused is the one answer to every failed sign-in: it doesn't say
// whether the user exists, is disabled, or has another password.
func SignInRefused() Problem { return Problem{field: "password", key: "problem.refused"} }

// Throttled: no attempt is looked at before wait is over.
func Throttled(wait time.Duration) Problem {
	return Problem{key: "problem.throttled", pairs: []any{"wait", wait}}
}

// Busy: too many passwords are being checked at once.
func Busy() Problem { return Problem{key: "problem.busy"} }

// CurrentPasswordMissing: the current password is needed to change it.
func CurrentPasswordMissing() Problem {
	return Problem{field: "current-password", key: "problem.current_password_missing"}
}

// CurrentPasswordWrong: what was given is not the current password.
func CurrentPasswordWrong() Problem {
	return Problem{field: "current-password", key: "problem.current_password_wrong"}
}

// NewUsernameMissing: the first user has to have a name.
func NewUsernameMissing() Problem { return Problem{field: "username", key: "problem.username_choose"} }

// NewUsernameUnsuitable: the name has characters that names don't have.
func NewUsernameUnsuitable() Problem {
	return Problem{field: "username", key: "problem.username_unsuitable"}
}

// NewUsernameTaken: somebody has the name.
func NewUsernameTaken() Problem { return Problem{field: "username", key: "problem.username_taken"} }

// NewPasswordMissing: no new password was given.
func NewPasswordMissing() Problem {
	return Problem{field: "new-password", key: "problem.new_password_missing"}
}

// NewPasswordShort: the password has fewer than min characters.
func NewPasswordShort(min int) Problem {
	return Problem{field: "new-password", key: "problem.new_password_short", pairs: []any{"min", min}}
}

// NewPasswordLong: the password is longer than we hash.
func NewPasswordLong() Problem {
	return Problem{field: "new-password", key: "problem.new_password_long"}
}

// NewPasswordCommon: the password is on the blocklist.
func NewPasswordCommon() Problem {
	return Problem{field: "new-password", key: "problem.new_password_common"}
}

// NewPasswordPersonal: the password contains word, which belongs to the
// account or to the service.
func NewPasswordPersonal(word string) Problem {
	return Problem{field: "new-password", key: "problem.new_password_personal", pairs: []any{"word", word}}
}

// NewPasswordCharacter: the password has a character no form can send.
func NewPasswordCharacter() Problem {
	return Problem{field: "new-password", key: "problem.new_password_character"}
}

// NewPasswordSame: the password was not changed.
func NewPasswordSame() Problem {
	return Problem{field: "new-password", key: "problem.new_password_same"}
}

// RepeatDiffers: the second typing differs from the first.
func RepeatDiffers() Problem {
	return Problem{field: "repeat-password", key: "problem.repeat_differs"}
}
