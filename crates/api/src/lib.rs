//! Management API: types, server, client.
