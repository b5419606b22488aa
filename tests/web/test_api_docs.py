"""/docs in a browser: Swagger UI of the service's own files, under the page's policy."""

from urllib.parse import urlsplit

from playwright.sync_api import expect

VIOLATIONS = """addEventListener('securitypolicyviolation', event => {
  (window.violations ??= []).push(`${event.violatedDirective} ${event.blockedURI}`);
})"""


def test_docs_show_the_operations_and_ask_no_other_host(ui) -> None:
    page, asked = ui.page, []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(VIOLATIONS)
    answer = page.goto(f"{ui.service.url}/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    document = page.request.get(f"{ui.service.url}/openapi.json").json()
    operations = sum(len(methods) for methods in document["paths"].values())
    expect(page.locator(".opblock")).to_have_count(operations)

    health = page.locator("[id$=healthz_healthz_get]")
    health.first.locator(".opblock-summary-control").click()
    health.first.get_by_role("button", name="Try it out").click()
    health.first.get_by_role("button", name="Execute").click()
    expect(health.first.locator(".live-responses-table")).to_contain_text("200")

    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("auth-bearer-value").fill("sapnet_0_0")
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    ui.shot("api-docs")
    ours = urlsplit(ui.service.url).netloc
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {ours}
    assert page.evaluate("window.violations ?? []") == []
