package app;

import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.core.annotation.Order;
import org.springframework.http.HttpMethod;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.annotation.RegisteredOAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.endpoint.OAuth2RefreshTokenGrantRequest;
import org.springframework.security.oauth2.client.endpoint.RestClientRefreshTokenTokenResponseClient;
import org.springframework.security.oauth2.client.oidc.web.logout.OidcClientInitiatedLogoutSuccessHandler;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.security.oauth2.client.web.DefaultOAuth2AuthorizationRequestResolver;
import org.springframework.security.oauth2.client.web.OAuth2AuthorizationRequestCustomizers;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.servlet.util.matcher.PathPatternRequestMatcher;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A site whose people Spring Security signs in, and an API that takes their access tokens. */
@SpringBootApplication
@RestController
public class Site {

	public static void main(String[] args) {
		SpringApplication.run(Site.class, args);
		System.out.println("\nready");
	}

	@GetMapping("/")
	Map<String, String> home(@AuthenticationPrincipal OidcUser user) {
		return Map.of("sub", user.getSubject(), "email", String.valueOf(user.getUserInfo() == null ? null : user.getUserInfo().getEmail()));
	}

	/** The tokens it holds, for the test to try at the API. */
	@GetMapping("/tokens")
	Map<String, String> tokens(@AuthenticationPrincipal OidcUser user, @RegisteredOAuth2AuthorizedClient("signet") OAuth2AuthorizedClient client) {
		return Map.of("access_token", client.getAccessToken().getTokenValue(), "id_token", user.getIdToken().getTokenValue());
	}

	@GetMapping("/refresh")
	Map<String, Boolean> refresh(@RegisteredOAuth2AuthorizedClient("signet") OAuth2AuthorizedClient client) {
		var before = client.getRefreshToken();
		var after = new RestClientRefreshTokenTokenResponseClient()
			.getTokenResponse(new OAuth2RefreshTokenGrantRequest(client.getClientRegistration(), client.getAccessToken(), before));
		return Map.of("rotated", !after.getRefreshToken().getTokenValue().equals(before.getTokenValue()));
	}

	@GetMapping("/signed-out")
	String signedOut() {
		return "signed out";
	}

	@GetMapping("/api")
	String api() {
		return "granted";
	}

	/** Access tokens as RFC 9068 has them. */
	@Bean
	JwtDecoder accessTokens(@Value("${issuer}") String issuer, @Value("${audience}") String audience) {
		var decoder = NimbusJwtDecoder.withIssuerLocation(issuer).validateType(false).build();
		decoder.setJwtValidator(JwtValidators.createAtJwtValidator().issuer(issuer).audience(audience).clientId("shop").build());
		return decoder;
	}

	@Bean
	@Order(1)
	SecurityFilterChain guardOfApi(HttpSecurity http) throws Exception {
		return http.securityMatcher("/api")
			.authorizeHttpRequests(requests -> requests.anyRequest().hasAuthority("SCOPE_orders:read"))
			.oauth2ResourceServer(server -> server.jwt(Customizer.withDefaults()))
			.build();
	}

	@Bean
	@Order(2)
	SecurityFilterChain guardOfSite(HttpSecurity http, ClientRegistrationRepository clients) throws Exception {
		var resolver = new DefaultOAuth2AuthorizationRequestResolver(clients, "/oauth2/authorization");
		resolver.setAuthorizationRequestCustomizer(OAuth2AuthorizationRequestCustomizers.withPkce());
		var signOut = new OidcClientInitiatedLogoutSuccessHandler(clients);
		signOut.setPostLogoutRedirectUri("{baseUrl}/signed-out");
		return http
			.authorizeHttpRequests(requests -> requests.requestMatchers("/signed-out").permitAll().anyRequest().authenticated())
			.oauth2Login(login -> login
				.authorizationEndpoint(endpoint -> endpoint.authorizationRequestResolver(resolver))
				.failureHandler((request, response, refusal) -> {
					response.setStatus(400);
					response.getWriter().print("refused: " + refusal.getMessage());
				}))
			.logout(logout -> logout
				.logoutRequestMatcher(PathPatternRequestMatcher.withDefaults().matcher(HttpMethod.GET, "/logout"))
				.logoutSuccessHandler(signOut))
			.oidcLogout(logout -> logout.backChannel(Customizer.withDefaults()))
			.build();
	}

}
