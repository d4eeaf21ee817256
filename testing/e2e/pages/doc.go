// Package pages tests the web pages of the service, and its answers to pages of other
// origins, in Chromium. The tests have the build tag e2e. The gateway runs in the test's
// process in front of testing/fakellama; the tests of the parent package use the real
// command.
package pages
