"""Published claims, reproduced on data that come inside packages."""
