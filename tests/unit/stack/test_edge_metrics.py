"""Envoy's statistics under the names that dashboards use."""

from exchange.runtime.edge_metrics import edge_metrics

ENVOY = """\
# TYPE envoy_server_live gauge
envoy_server_live{} 1
# TYPE envoy_pincex_edge_http_requests counter
envoy_pincex_edge_http_requests{status="200",method="GET",listener="public"} 8
envoy_pincex_edge_http_requests{status="413",method="POST",listener="public"} 1
# TYPE envoy_pincex_edge_http_request_duration histogram
envoy_pincex_edge_http_request_duration_bucket{status="200",method="GET",listener="public",le="250"} 1
envoy_pincex_edge_http_request_duration_bucket{status="200",method="GET",listener="public",le="30000000"} 8
envoy_pincex_edge_http_request_duration_bucket{status="200",method="GET",listener="public",le="+Inf"} 8
envoy_pincex_edge_http_request_duration_sum{status="200",method="GET",listener="public"} 15902.860300506459
envoy_pincex_edge_http_request_duration_count{status="200",method="GET",listener="public"} 8
"""
OURS = """\
# HELP http_requests_total REST requests by the status that the client got.
# TYPE http_requests_total counter
http_requests_total{status="200",method="GET",listener="public"} 8
http_requests_total{status="413",method="POST",listener="public"} 1
# HELP http_request_duration_seconds From the first byte of a REST request to the last of its answer.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{status="200",method="GET",listener="public",le="0.00025"} 1
http_request_duration_seconds_bucket{status="200",method="GET",listener="public",le="30"} 8
http_request_duration_seconds_bucket{status="200",method="GET",listener="public",le="+Inf"} 8
http_request_duration_seconds_sum{status="200",method="GET",listener="public"} 0.0159029
http_request_duration_seconds_count{status="200",method="GET",listener="public"} 8
"""


def test_counts_keep_their_values_and_times_become_seconds() -> None:
    assert edge_metrics(ENVOY) == OURS


def test_text_without_our_series_gives_nothing() -> None:
    assert edge_metrics("") == ""
    assert edge_metrics("envoy_server_live{} 1\n") == ""


def test_a_line_of_another_form_is_left_out_and_the_rest_stays() -> None:
    odd = 'envoy_pincex_edge_http_requests{status="200"\nenvoy_pincex_edge_http_requests_bucket{le="1"} 2\n'

    assert edge_metrics(odd + ENVOY) == OURS


def test_a_certificate_that_several_listeners_show_is_one_series_with_its_earliest_end() -> None:
    stat = "envoy_listener_ssl_certificate_expiration_unix_time_seconds"
    cluster = "envoy_cluster_ssl_certificate_expiration_unix_time_seconds"
    envoy = (
        f"# TYPE {stat} gauge\n"
        f'{stat}{{envoy_tls_certificate="edge",envoy_listener_address="127.0.0.1_8443"}} 1803408174\n'
        f'{stat}{{envoy_listener_address="127.0.0.1_8444",envoy_tls_certificate="edge"}} 1803408174\n'
        f'{stat}{{envoy_tls_certificate="client-authority",envoy_listener_address="127.0.0.1_8444"}} 2110992174\n'
        f'{stat}{{envoy_tls_certificate="client-authority",envoy_listener_address="127.0.0.1_8445"}} 2110992100\n'
        f'{cluster}{{envoy_cluster_name="trading",envoy_tls_certificate="internal"}} 1803408175\n'
    )
    assert edge_metrics(envoy) == (
        "# HELP pincex_certificate_expiry_seconds When a certificate of the edge expires, in Unix time.\n"
        "# TYPE pincex_certificate_expiry_seconds gauge\n"
        'pincex_certificate_expiry_seconds{certificate="client-authority"} 2110992100\n'
        'pincex_certificate_expiry_seconds{certificate="edge"} 1803408174\n'
        'pincex_certificate_expiry_seconds{certificate="internal"} 1803408175\n'
    )
