"""Open-loop load for a running vLLM server, and the figures of what came back.

    answers = offer_load(requests, routes, horizon_s=60)
    row = cohort(requests, answers.first_token_s, answers.finish_s, horizon_s=60, adapters=8)

`load` sends (needs aiohttp, extra `record`), `cohort` computes the same figures from a measured and a simulated window.
"""
