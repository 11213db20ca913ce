"""`rrl report`: runs compared on one page that needs no network. `rrl.report.write.write` makes it."""
