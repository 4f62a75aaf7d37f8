package main

import "slices"

// checks is the whole list, in the order of the report: what the issuer says of
// itself first, then what it does.
func checks() []Check {
	return slices.Concat(
		oidcDiscoveryChecks(),
		rfc8414Checks(),
		rfc7517Checks(),
		rfc6749Checks(),
		rfc6749CodeChecks(),
		rfc6750Checks(),
		rfc7523Checks(),
		rfc8707Checks(),
		rfc9068Checks(),
		rfc7662Checks(),
		rfc9701Checks(),
		rfc7009Checks(),
		rfc9207Checks(),
		rfc9700Checks(),
		rfc9700CodeChecks(),
		rfc7636Checks(),
		rfc8252Checks(),
		oidcCoreChecks(),
		formPostChecks(),
		logoutChecks(),
		backChannelChecks(),
		frontChannelChecks(),
		rfc9126Checks(),
		rfc9101Checks(),
		rfc7591Checks(),
		rfc7592Checks(),
		oidcRegistrationChecks(),
		rfc9728Checks(),
		rfc9470Checks(),
	)
}
