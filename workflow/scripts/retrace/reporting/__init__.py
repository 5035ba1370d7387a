"""The report: experiments, their data, scores and costs on one HTML page."""
