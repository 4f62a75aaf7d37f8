package provider

// The audit events that requests cause. Those of operators are in admin.go.
const eventTokenRevoked = "token.revoked"
